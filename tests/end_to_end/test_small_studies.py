"""Studies that leave something out or bring an estimator of their own are whole, and no other key has to change."""

import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest

from study_workspace import ROOT, Workspace

pytestmark = pytest.mark.slow

ID_DATASET, MODEL = "scenes", "adversary"


def made(study: Workspace) -> set[str]:
    """Return the figures and tables of the report, by name."""
    return {path.stem for path in (study.folder / "reports").rglob("*") if path.suffix in (".pdf", ".csv", ".html")}


def page(study: Workspace) -> tuple[str, dict]:
    """Return the page and the values that it carries."""
    text = (study.folder / "reports" / "index.html").read_text(encoding="utf-8")
    return text, json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])


def without_report(study: Workspace) -> set[str]:
    """Remove the report, so that what a smaller study makes of it is seen; return what was in it."""
    before = made(study)
    shutil.rmtree(study.folder / "reports")
    return before


def test_a_study_without_shifted_datasets_is_whole(scratch: Workspace) -> None:
    before = without_report(scratch)
    scratch.change("study", "shifts", value=[])
    scratch.run()
    assert made(scratch) == before - {"mixtures"}
    for name in ("accuracy", "reliability", "certification", "comparisons", "decisions", "shipping", "data"):
        table = pl.read_csv(scratch.folder / "reports" / "tables" / f"{name}.csv")
        assert set(table["dataset"]) == {ID_DATASET}, name
    text, data = page(scratch)
    assert "mixtures" not in re.findall(r'<section id="([^"]+)"', text)
    assert data["mixtures"] == [] and {curve["dataset"] for curve in data["curves"]} == {ID_DATASET}
    assert "scenes-multimodal" not in text
    # What is drawn all the same where it is asked for says why it is empty.
    scratch.run("reports/mixtures.pdf")
    scratch.run("--report", "report.html")


def test_a_study_of_maxprob_alone_on_unquantized_models_needs_no_further_key(scratch: Workspace) -> None:
    before = without_report(scratch)
    scratch.change("study", value={"models": [MODEL], "schemes": ["bf16"], "shifts": [], "estimators": ["maxprob"]})
    planned, _ = scratch.plan()
    assert "train_selector" not in planned and planned["write_scores"] == 1
    scratch.run()
    assert made(scratch) == before - {"mixtures", "selector_gain", "selector", "members", "drift", "drift_from_bf16"}
    tables = scratch.folder / "reports" / "tables"
    assert pl.read_csv(tables / "comparisons.csv").is_empty() and pl.read_csv(tables / "shipping.csv").is_empty()
    text, data = page(scratch)
    assert set(data["decisions"]["estimator"]) == {"maxprob"}
    assert "The study has no scheme beside bf16" in text and "The Selector trains" not in text


def test_a_study_of_the_selector_alone_is_whole(scratch: Workspace) -> None:
    before = without_report(scratch)
    scratch.change("study", "shifts", value=[])
    scratch.change("study", "estimators", value=["selector"])
    scratch.run()
    assert made(scratch) == before - {"mixtures", "selector_gain", "quantization"}
    table = pl.read_csv(scratch.folder / "reports" / "tables" / "comparisons.csv")
    assert set(table["first_estimator"]) == {"selector"} and set(table["second_scheme"]) == {"bf16"}


def test_an_estimator_of_ones_own_is_on_the_page_once_the_study_names_it(scratch: Workspace) -> None:
    estimators = Path("workflow", "scripts", "quantrust", "confidence", "estimators")
    shutil.copy(ROOT / "docs" / "examples" / "first_token.py", scratch.folder / estimators)
    scratch.change("study", "shifts", value=[])
    scratch.change("study", "estimators", value=["maxprob", "first-token", "first-token+platt"])
    scratch.run()
    text, data = page(scratch)
    expected = {"maxprob", "first-token", "first-token+platt"}
    assert set(data["decisions"]["estimator"]) == {curve["estimator"] for curve in data["curves"]} == expected
    for name in expected:
        assert f'<option value="{name}">{name}</option>' in text
        assert f"By the confidence of {name}" in text
    compared = pl.read_csv(scratch.folder / "reports" / "tables" / "comparisons.csv")
    assert set(compared["first_estimator"]) == expected
