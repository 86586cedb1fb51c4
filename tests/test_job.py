"""What a script's log and standard error hold when its work fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from quantrust.errors import QuantrustError
from quantrust.job import job_log


class OutOfMemoryError(RuntimeError):
    '''Named as torch's, which a job without torch cannot import.'''


with job_log("log"):
    raise {error}
"""


def fail(folder: Path, error: str) -> tuple[int, str, str]:
    """Return the exit code of a script that fails, its standard error and its log."""
    command = [sys.executable, "-c", SCRIPT.format(error=error)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr, (folder / "log").read_text()


def test_bad_input_stands_in_the_log_and_on_standard_error_without_a_traceback(tmp_path):
    message = "error: f.json is missing\n"
    assert fail(tmp_path, "QuantrustError('f.json is missing')") == (2, message, message)


def test_a_message_with_bytes_of_a_name_that_are_no_text_is_shown_all_the_same(tmp_path):
    message = "error: f\\udcff.json is missing\n"
    assert fail(tmp_path, r"QuantrustError('f\udcff.json is missing')") == (2, message, message)


def test_an_error_that_was_not_foreseen_stands_in_the_log_too(tmp_path):
    code, printed, logged = fail(tmp_path, "ValueError('what is this')")
    assert code == 1
    for text in (printed, logged):
        assert text.startswith("Traceback") and text.endswith("ValueError: what is this\n")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (r"OutOfMemoryError('CUDA out of memory.\nMore')", "CUDA out of memory."),
        ("MemoryError()", "no more of the host's"),
    ],
)
def test_running_out_of_memory_is_one_line_that_says_where_to_look(error, reason, tmp_path):
    code, printed, logged = fail(tmp_path, error)
    message = f"error: out of memory ({reason}); `quantrust plan` says what the study's jobs take\n"
    assert (code, printed) == (1, message)
    assert logged.startswith("Traceback")


def test_ctrl_c_stands_in_the_log_alone(tmp_path):
    assert fail(tmp_path, "KeyboardInterrupt") == (130, "", "interrupted\n")


def test_a_file_that_the_system_refuses_is_one_line_and_the_log_says_where_it_was_wanted(tmp_path):
    code, printed, logged = fail(tmp_path, "PermissionError(13, 'Permission denied', 'data/x.parquet')")
    message = "error: data/x.parquet: Permission denied; make it readable, and its folder writable where it is written,"
    assert code == 2 and printed == f"{message} and run again\n"
    assert logged.startswith("Traceback")


def test_an_error_of_the_system_that_names_no_file_is_not_taken_for_one_that_does(tmp_path):
    code, printed, _ = fail(tmp_path, "OSError(5, 'Input/output error')")
    assert code == 1 and printed.startswith("Traceback")


def test_a_log_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "log").mkdir()
    command = [sys.executable, "-c", SCRIPT.format(error="ValueError('not run')")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    message = "error: log: the log cannot be written (Is a directory); make its folder writable\n"
    assert (done.returncode, done.stderr) == (2, message)
