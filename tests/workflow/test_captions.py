"""Captions of results in Snakemake's report: each is there and used, with a category and a label."""

from pathlib import Path

from quantrust.report.contents import ENTRIES

CAPTIONS = Path(__file__).resolve().parents[2] / "workflow" / "report"
# The caption of the page, and what stands above the whole report.
OTHERS = {"index", "study"}


def test_every_figure_and_table_has_a_caption_of_its_name_and_a_label_of_its_own() -> None:
    assert {path.stem for path in CAPTIONS.glob("*.rst")} == {entry.name for entry in ENTRIES} | OTHERS
    assert len({entry.label for entry in ENTRIES}) == len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    assert all(entry.label for entry in ENTRIES)
