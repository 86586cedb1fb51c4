"""Snakemake's own report of a finished study: every figure, table and page with its caption, category and label."""

import re

import pytest

pytestmark = pytest.mark.slow


def test_every_figure_and_table_of_the_study_is_in_the_report(scratch) -> None:
    scratch.run("--report", "report.html")
    report = (scratch.folder / "report.html").read_text(encoding="utf-8")
    found = {path.rsplit("/", 1)[-1] for path in re.findall(r'"(reports/[^"]+)": {"name": ', report)}
    tables = {path.name for path in (scratch.folder / "reports" / "tables").glob("*.csv")}
    figures = {path.name for path in (scratch.folder / "reports").glob("*.png")}
    assert found == {*tables, *figures, "index.html"}
    for words in (
        "How far can these models be quantized",
        "Wrong answers at the right edge",
        "Efficiency and reliability",
    ):
        assert words in report
