"""Captions of results in Snakemake's report: each is there and used, with a category and a label."""

from pathlib import Path

import pytest

from quantrust.errors import QuantrustError
from quantrust.report.contents import ENTRIES
from quantrust.study import settings
from quantrust.study.config import study_config

CAPTIONS = Path(__file__).resolve().parents[2] / "workflow" / "report"
# The caption of the page, and what stands above the whole report.
OTHERS = {"index", "study"}


def test_every_figure_and_table_has_a_caption_of_its_name_and_a_label_of_its_own() -> None:
    assert {path.stem for path in CAPTIONS.glob("*.rst")} == {entry.name for entry in ENTRIES} | OTHERS
    assert len({entry.label for entry in ENTRIES}) == len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    assert all(entry.label for entry in ENTRIES)


def test_a_figure_without_a_caption_is_named_with_the_file_that_it_lacks(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(settings, "CAPTIONS", tmp_path)
    with pytest.raises(QuantrustError, match=r"risk_coverage\.rst: no such file; expected the caption of the figure"):
        settings.figure_captions(study_config({}))
