"""A digest of the code that a script runs: its own bytes, and those of all modules of the package that it imports.

Snakemake's `code` trigger sees a script, but not the modules that it imports. Every rule therefore carries this digest
as a parameter, so that an edit of a module reruns exactly the jobs whose scripts import it, directly or not.
"""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from quantrust.errors import QuantrustError

SCRIPTS = Path(__file__).resolve().parents[1]


@cache
def source_digest(module: str) -> str:
    """Digest a module of this package, named with dots, and what it imports from the package (see `code_digest`)."""
    return code_digest(SCRIPTS.joinpath(*module.split(".")).with_suffix(".py"))


def code_digest(script: str | Path, root: str | Path = SCRIPTS) -> str:
    """Digest a script and, transitively, what it imports from below `root`.

    A data file in the folder of an imported module (anything but Python files and folders) counts with that module.
    Imports inside functions count as well. A module that is named only in a string at run time cannot be seen.

    Parameters
    ----------
    script : str or Path
        A Python file.
    root : str or Path
        The folder that import names start from, by default that of the package. Modules found elsewhere are not
        followed.

    Returns
    -------
    str
        16 hexadecimal digits that depend on the bytes of those files and on their places below `root`.

    Raises
    ------
    QuantrustError
        A file cannot be read or is not valid Python.
    """
    root = Path(root).resolve()
    script = Path(script).resolve()
    summary = hashlib.sha256()
    for path in sorted(code_files(script, root)):
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        summary.update(f"{name}\0{_bytes_digest(path)}\n".encode())
    return summary.hexdigest()[:16]


def code_files(script: Path, root: Path) -> set[Path]:
    """Return the files that `code_digest` covers, the script included."""
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        if path.suffix != ".py":
            continue
        waiting.extend(_imported_files(path, root))
        if path != script:
            waiting.extend(_data_files(path.parent))
    return found


@cache
def _data_files(folder: Path) -> tuple[Path, ...]:
    return tuple(path for path in folder.iterdir() if _is_data(path) and path.is_file())


def _is_data(path: Path) -> bool:
    return path.suffix not in {".py", ".pyc"} and not path.name.startswith(".")


@cache
def _bytes_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def _imported_files(path: Path, root: Path) -> tuple[Path, ...]:
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (OSError, SyntaxError) as error:
        raise QuantrustError(f"{path}: cannot be read as Python, so its imports are unknown: {error}") from error
    files: set[Path] = set()
    for name in _imported_names(tree, path, root):
        files.update(_module_files(name, root))
    return tuple(sorted(files))


def _imported_names(tree: ast.AST, path: Path, root: Path) -> Iterator[str]:
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.parent
                for _ in range(node.level - 1):
                    package = package.parent
                base = ".".join([*package.relative_to(root).parts, *filter(None, [base])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield what a tree holds of statements, at any depth. Expressions hold none, and are most of a tree."""
    for block in ("body", "orelse", "finalbody", "handlers", "cases"):
        for node in getattr(tree, block, ()):
            yield node
            yield from _statements(node)


@cache
def _module_files(name: str, root: Path) -> tuple[Path, ...]:
    """Return the files of a dotted name: each package on the way, and the module. An attribute ends the walk."""
    files = []
    folder = root
    for part in name.split("."):
        package = folder / part / "__init__.py"
        if package.is_file():
            files.append(package)
            folder = package.parent
            continue
        module = folder / f"{part}.py"
        if module.is_file():
            files.append(module)
        break
    return tuple(files)
