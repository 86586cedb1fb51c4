"""The config of a study is read as Snakemake reads it."""

from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from quantrust.errors import QuantrustError
from quantrust.study.config import completed, merged, read_study
from study_workspace import OVERLAYS, ROOT


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_overlays_are_merged_as_snakemake_merges_them(monkeypatch: pytest.MonkeyPatch, overlay: Path) -> None:
    expected = yaml.safe_load((ROOT / "config.yaml").read_text())
    update_config(expected, yaml.safe_load(overlay.read_text()))
    monkeypatch.chdir(ROOT)
    assert read_study([overlay]) == completed(expected)


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
        ("- 1\n", "overlay.yaml: holds list; expected a map"),
        ("a: [", "overlay.yaml: can not be read as YAML"),
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


def test_elsewhere_than_in_the_project_the_message_says_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QuantrustError, match=r"config\.yaml does not exist here; go to the folder of the project"):
        read_study([])
