"""The code digest: it follows imports exactly."""

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

from quantrust.digest import SCRIPTS, code_digest, code_files, source_digest
from quantrust.errors import QuantrustError

FILES = {
    "job.py": "import os\nfrom pack.stage import run\n",
    "pack/__init__.py": "",
    "pack/stage.py": "from pack import helper\nfrom pack.inner.deep import value\ndef run():\n  import pack.late\n",
    "pack/helper.py": "",
    "pack/late.py": "from . import sibling\n",
    "pack/sibling.py": "",
    "pack/unused.py": "import pack.stage\n",
    "pack/inner/__init__.py": "",
    "pack/inner/deep.py": "from ..helper import x\nvalue = 1\n",
    "pack/inner/table.json": "{}",
    "pack/aside/__init__.py": "",
    "pack/aside/table.json": "{}",
}


def write(folder: Path, names: Iterable[str] = FILES, edited: str | None = None) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FILES[name] + ("\n" if name == edited else ""))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "scripts")


def test_the_files_are_the_script_and_all_it_imports_from_the_root(root: Path) -> None:
    found = {path.relative_to(root).as_posix() for path in code_files(root / "job.py", root)}
    assert found == set(FILES) - {"pack/unused.py", "pack/aside/__init__.py", "pack/aside/table.json"}


@pytest.mark.parametrize("name", [name for name in FILES if "unused" not in name and "aside" not in name])
def test_an_edit_of_a_covered_file_changes_the_digest(root: Path, tmp_path: Path, name: str) -> None:
    edited = write(tmp_path / "edited", edited=name)
    assert code_digest(edited / "job.py", edited) != code_digest(root / "job.py", root)


@pytest.mark.parametrize("name", ["pack/unused.py", "pack/aside/table.json", "pack/new.py"])
def test_an_edit_elsewhere_does_not(root: Path, name: str) -> None:
    before = code_digest(root / "job.py", root)
    (root / name).write_text("other = 1\n")
    assert code_digest(root / "job.py", root) == before


def test_the_place_of_the_folder_does_not_matter(root: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "elsewhere")
    assert code_digest(root / "job.py", root) == code_digest(other / "job.py", other)


def test_a_script_that_is_no_python_is_named(root: Path) -> None:
    (root / "job.py").write_text("def broken(:\n")
    with pytest.raises(QuantrustError, match=r"job\.py: cannot be read as Python"):
        code_digest(root / "job.py", root)


NESTED = """
import a
def f():
    import b
    async def g():
        async with x:
            import c
class C:
    import d
    if x:
        import e
    elif y:
        import f
    else:
        import g
try:
    import h
except E:
    import i
else:
    import j
finally:
    import k
try:
    pass
except* E:
    import l
for _ in x:
    import m
else:
    while x:
        import n
match x:
    case 1:
        with x: import o
"""


def test_imports_are_seen_in_every_block(tmp_path: Path) -> None:
    imported = [
        alias.name for node in ast.walk(ast.parse(NESTED)) if isinstance(node, ast.Import) for alias in node.names
    ]
    assert sorted(imported) == list("abcdefghijklmno")
    (tmp_path / "job.py").write_text(NESTED)
    for name in imported:
        (tmp_path / f"{name}.py").touch()
    assert {path.stem for path in code_files(tmp_path / "job.py", tmp_path)} == {"job", *imported}


def test_the_selectors_script_covers_the_selector_and_nothing_of_the_evaluation() -> None:
    found = {path.relative_to(SCRIPTS).as_posix() for path in code_files(SCRIPTS / "train_selector.py", SCRIPTS)}
    assert {"train_selector.py", "quantrust/confidence/selector_training.py", "quantrust/files.py"} <= found
    assert not any("evaluation" in path or "quantization" in path for path in found)


def test_a_module_has_a_digest_by_its_name() -> None:
    assert source_digest("quantrust.files") == code_digest(SCRIPTS / "quantrust" / "files.py")
    assert source_digest("quantrust.files") != source_digest("quantrust.errors")
