"""The config of a study is read as Snakemake reads it."""

from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from quantrust.errors import QuantrustError
from quantrust.study.config import completed, merged, read_study
from study_workspace import OVERLAYS, ROOT, overlay_files


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_overlays_are_merged_as_snakemake_merges_them(monkeypatch: pytest.MonkeyPatch, overlay: Path) -> None:
    monkeypatch.chdir(ROOT)
    files = [Path(file) for file in overlay_files(overlay.stem)]
    expected = yaml.safe_load(Path("config.yaml").read_text())
    for file in files:
        update_config(expected, yaml.safe_load(file.read_text()))
    assert read_study(files) == completed(expected)


def test_a_later_overlay_goes_before_an_earlier_one_and_changes_neither() -> None:
    base, overlay = {"a": {"b": 1, "c": [1, 2]}, "d": 1}, {"a": {"c": [3]}, "e": {"f": 2}}
    assert merged(base, overlay) == {"a": {"b": 1, "c": [3]}, "d": 1, "e": {"f": 2}}
    assert base == {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    # what was no map before is replaced as a whole
    assert merged({"a": 1}, {"a": {"b": 2}}) == {"a": {"b": 2}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "overlay.yaml: no such file"),
        ("- 1\n", "overlay.yaml: holds a list; expected a map"),
        ("a: [", "overlay.yaml: cannot be read as YAML"),
        ("seeds: 1\n", "unknown key seeds"),
    ],
)
def test_a_faulty_overlay_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, message: str
) -> None:
    monkeypatch.chdir(ROOT)
    if content is not None:
        (tmp_path / "overlay.yaml").write_text(content)
    with pytest.raises(QuantrustError, match=message):
        read_study([tmp_path / "overlay.yaml"])


def test_in_another_folder_the_models_of_the_project_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    in_project = read_study([])
    monkeypatch.chdir(tmp_path)
    elsewhere = read_study([])
    models = {name: model | {"source": str(ROOT / model["source"])} for name, model in in_project["models"].items()}
    for name, model in elsewhere["models"].items():
        source = Path(model["source"])
        assert not source.is_absolute()
        model["source"] = str(source.resolve())
        assert model == models[name]
    assert {**elsewhere, "models": {}} == {**in_project, "models": {}}


def test_a_model_in_the_working_folder_goes_before_that_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = Path("resources/models/adversary")
    own.mkdir(parents=True)
    assert read_study([])["models"]["adversary"]["source"] == str(own)


def test_a_config_in_the_working_folder_is_laid_over_the_default_and_below_the_overlays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("seed: 3\nselector: {seed: 4}\n")
    Path("overlay.yaml").write_text("seed: 5\n")
    config = read_study(["overlay.yaml"])
    assert (config["seed"], config["selector"]["seed"]) == (5, 4)
    assert config["selector"]["hidden"] == yaml.safe_load((ROOT / "config.yaml").read_text())["selector"]["hidden"]


def test_a_package_without_its_workflow_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quantrust.study.config.SCHEMA", Path("nowhere/schema.yaml"))
    with pytest.raises(QuantrustError, match=r"nowhere/schema\.yaml does not exist: the package was installed without"):
        read_study([])
