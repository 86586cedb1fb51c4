"""What holds for every format: its record is complete, and its task and its files are known elsewhere by its name."""

import pytest

from quantrust.data.format import PARTS, file_of_questions, format_names, load_format, recognised
from quantrust.data.official import Files
from quantrust.errors import QuantrustError
from quantrust.tasks.task import Task, task_of_format


@pytest.mark.parametrize("name", format_names())
def test_a_format_names_a_task_and_its_files(name):
    file_format = load_format(name)
    assert isinstance(task_of_format(name), Task)
    assert "annotations" in file_format.parts and set(file_format.parts) <= set(PARTS)
    assert file_of_questions(name, {"questions": "q.json", "annotations": "a.json"}) in ("q.json", "a.json")


@pytest.mark.parametrize("content", [None, 3, "x", [], {}, [3], [{}], {"questions": []}, {"annotations": []}])
def test_one_format_at_most_recognises_what_is_none(content):
    assert sum(load_format(name).recognises(content) for name in format_names()) <= 1


def test_what_no_format_recognises_is_named_with_the_formats(tmp_path):
    """An object of another kind is left to a format that knows it."""
    (tmp_path / "a.json").write_text('{"lines": []}')
    with pytest.raises(QuantrustError, match=r"a\.json: looks like a file of 0 formats; expected one of "):
        recognised(Files(tmp_path / "a.json"))


def test_an_unknown_format_is_named():
    with pytest.raises(QuantrustError, match="unknown format 'okvqa'; expected one of "):
        load_format("okvqa")
