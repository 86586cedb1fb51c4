"""What is found by its name is imported by nothing: the digest that a rule carries is all that depends on it."""

import re
from pathlib import Path

import pytest

from quantrust.data.format import format_names
from quantrust.digest import SCRIPTS, code_files

RULES = Path(__file__).parents[2] / "workflow" / "rules"
# Those modules of the folder that end in a record; the others are what tasks share.
TASKS = [path.stem for path in (SCRIPTS / "quantrust/tasks").glob("*.py") if "\nTASK = " in path.read_text()]


@pytest.mark.parametrize(
    ("script", "rule", "digests"),
    [
        ("build_questions", "data.smk", ("format_code", "task_code")),
        ("divide_dataset", "data.smk", ("format_code",)),
        ("dump_shard", "inference.smk", ("task_code",)),
        ("dump_matches", "inference.smk", ("task_code",)),
    ],
)
def test_tasks_and_formats_are_imported_by_no_script_that_finds_them(
    script: str, rule: str, digests: tuple[str, ...]
) -> None:
    files = {path.relative_to(SCRIPTS).as_posix() for path in code_files(SCRIPTS / f"{script}.py", SCRIPTS)}
    found = {f"quantrust/data/formats/{name}.py" for name in format_names()}
    found |= {f"quantrust/tasks/{name}.py" for name in TASKS}
    assert {"exact_match", "vqa"} <= {*TASKS} and all((SCRIPTS / name).is_file() for name in found)
    assert "quantrust/errors.py" in files and not files & found
    rules = re.split(r"^rule ", (RULES / rule).read_text(), flags=re.MULTILINE)
    using = [text for text in rules if f'code=code("{script}")' in text]
    assert using and all(f"{digest}=of(digests.{digest})" in text for text in using for digest in digests)
