"""The console command: help that a newcomer can follow, with examples that the parsers take."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from quantrust import __main__, cli
from quantrust.digest import SCRIPTS

ROOT = Path(__file__).resolve().parents[1]


def help_of(*command: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "quantrust.cli", *command, "--help"],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS), "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def examples_in(text: str) -> list[list[str]]:
    """Return the command lines in a text, whose lines may end in a backslash."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = re.findall(r"^(?:\$|S=\S+)?\s*(quantrust [a-z]+ .*)$", joined, flags=re.MULTILINE)
    return [shlex.split(line) for line in lines if "COMMAND" not in line]


@pytest.mark.parametrize("command", [[], *([command.__name__.rpartition(".")[2]] for command in cli.COMMANDS)])
def test_help_shows_examples_in_lines_that_a_terminal_holds(command):
    text = help_of(*command)
    assert "\nexamples:\n" in text
    assert examples_in(text)
    assert max(map(len, text.splitlines())) <= 80


def test_every_example_of_the_help_and_the_documentation_is_a_command_that_parses(monkeypatch):
    ran = []
    for command in cli.COMMANDS:
        monkeypatch.setattr(command, "run", ran.append)
    texts = [help_of(), *(help_of(command.__name__.rpartition(".")[2]) for command in cli.COMMANDS)]
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    texts += [page.read_text(encoding="utf-8") for page in pages]
    examples = [example for text in texts for example in examples_in(text)]
    assert {example[1] for example in examples} == {command.__name__.rpartition(".")[2] for command in cli.COMMANDS}
    for example in examples:
        assert cli.main(example[1:]) == 0
    assert len(ran) == len(examples)


def test_ctrl_c_ends_a_command_in_one_line(monkeypatch, capsys):
    def interrupt(arguments=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.plan, "run", interrupt)
    assert cli.main(["plan"]) == 130
    # while modules are imported, before there is a command
    monkeypatch.setattr(cli, "main", interrupt)
    assert __main__.main() == 130
    assert capsys.readouterr().err == "interrupted\n" * 2


def test_a_file_that_the_system_refuses_is_named_in_one_line(monkeypatch, capsys):
    def refuse(arguments):
        raise PermissionError(13, "Permission denied", "data/\udcff.parquet")

    monkeypatch.setattr(cli.plan, "run", refuse)
    assert cli.main(["plan"]) == 2
    (printed,) = capsys.readouterr().err.splitlines()
    assert printed.startswith("error: data/\\udcff.parquet: Permission denied; make it readable")


def test_running_out_of_memory_is_one_line(tmp_path, monkeypatch, capsys):
    """No machine holds so many resamples: what is asked for is 4 petabytes, whatever the data."""
    monkeypatch.setattr("quantrust.commands.numbers.MOST_RESAMPLES", 10**15)
    files = []
    for name, content in {
        "questions": {"questions": [{"question_id": 1, "image_id": 1, "question": "what?"}]},
        "annotations": {"annotations": [{"question_id": 1, "image_id": 1, "answers": [{"answer": "a cat"}] * 10}]},
        "predictions": [{"question_id": 1, "answer": "a cat", "confidence": 0.5}],
    }.items():
        (tmp_path / name).write_text(json.dumps(content))
        files += [f"--{name}", str(tmp_path / name)]
    assert cli.main(["score", *files, "--resamples", str(10**15)]) == 1
    (printed,) = capsys.readouterr().err.splitlines()
    assert printed.startswith("error: out of memory (Unable to allocate ")
