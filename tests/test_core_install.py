"""The package without models, workflow and report, as somebody installs it who only wants to score predictions."""

import json
import shutil
import subprocess
import venv
from pathlib import Path

import polars as pl
import pytest

from quantrust import cli

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console command of a fresh environment with the package and the core's dependencies alone."""
    folder = tmp_path_factory.mktemp("core")
    # A copy, because building leaves files beside the sources.
    package = Path("workflow", "scripts", "quantrust")
    shutil.copytree(ROOT / package, folder / "source" / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", folder / "source"]
    subprocess.run(command, check=True)
    return python.with_name("quantrust")


def run(command: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([command, *arguments], cwd=folder, capture_output=True, text=True)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Ten questions about ten images, of which the surest six are answered rightly."""
    ids = [{"question_id": number, "image_id": number} for number in range(10)]
    answers = [{"answer": "yes", "answer_confidence": "yes", "answer_id": place} for place in range(1, 11)]
    questions = {"questions": [{**one, "question": "Is it?"} for one in ids]}
    annotations = {
        "annotations": [{**one, "answers": answers, "answer_type": "yes/no", "question_type": "is it"} for one in ids]
    }
    predictions = [
        {"question_id": number, "answer": "yes" if number < 6 else "no", "confidence": 0.95 - 0.1 * number}
        for number in range(10)
    ]
    for name, content in (("q", questions), ("a", annotations), ("p", predictions)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.slow
def test_the_core_alone_scores_predictions(core: Path, files: Path) -> None:
    arguments = ("--questions", "q.json", "--annotations", "a.json", "--predictions", "p.json", "--json", "out.json")
    done = run(core, files, "score", *arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads((files / "out.json").read_text())["accuracy"] == 0.6
    installed = subprocess.run([core.parent / "pip", "list", "--format=freeze"], capture_output=True, text=True).stdout
    names = {line.split("==")[0].lower() for line in installed.splitlines()}
    assert {"numpy", "polars", "pyarrow", "scipy", "scikit-learn", "tqdm"} <= names
    assert not names & {"torch", "transformers", "snakemake", "matplotlib", "datasets"}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_the_core_alone_judges_tables_of_scores(core: Path, tmp_path: Path, suffix: str) -> None:
    rows = {"id": list(range(80)), "correct": [True] * 80, "confidence": [0.5 + number / 200 for number in range(80)]}
    table, path = pl.DataFrame(rows), tmp_path / f"t.{suffix}"
    {"csv": table.write_csv, "jsonl": table.write_ndjson, "parquet": table.write_parquet}[suffix](path)
    for command in (
        ("score", path.name),
        ("compare", path.name, path.name),
        ("certify", path.name, "--risks", "0.1"),
        ("power", path.name, "--difference", "0.1", "--certify", "0.1", "--images", "40"),
    ):
        done = run(core, tmp_path, *command)
        assert done.returncode == 0, done.stderr
    done = run(core, tmp_path, "score", path.name, "--plot", "out.pdf", "--json", "out.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert "this command needs the package matplotlib, which is not installed" in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.slow
def test_a_command_that_needs_more_than_the_core_says_what_to_install(core: Path, tmp_path: Path) -> None:
    done = run(core, tmp_path, "plan")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: this command needs the package ")
    assert 'pip install "quantrust[models,workflow,report,serve]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_module_of_the_package_itself_that_is_missing_is_no_lack_of_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ModuleNotFoundError("No module named 'quantrust.x'", name="quantrust.x")

    monkeypatch.setattr(cli.COMMANDS[0], "run", broken)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["plan"])
