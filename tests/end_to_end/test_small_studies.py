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
SCHEMES = ["bf16", "hqq-w3g32-full"]


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


def test_a_study_without_shifts_and_with_an_estimator_of_ones_own_is_whole(scratch: Workspace) -> None:
    before = without_report(scratch)
    own = Path("workflow", "scripts", "quantrust", "confidence", "estimators", "first_token.py")
    shutil.copy(ROOT / "docs" / "examples" / own.name, scratch.folder / own)
    estimators = ["maxprob", "selector", "first-token", "first-token+platt"]
    scratch.change("study", value={"models": [MODEL], "schemes": SCHEMES, "shifts": [], "estimators": estimators})
    scratch.run()
    assert made(scratch) == before - {"mixtures"}
    for name in ("accuracy", "reliability", "certification", "comparisons", "decisions", "shipping", "data", "drift"):
        table = pl.read_csv(scratch.folder / "reports" / "tables" / f"{name}.csv")
        assert set(table["dataset"]) == {ID_DATASET}, name
    text, data = page(scratch)
    assert "mixtures" not in re.findall(r'<section id="([^"]+)"', text)
    assert data["mixtures"] == [] and {curve["dataset"] for curve in data["curves"]} == {ID_DATASET}
    assert "scenes-multimodal" not in text
    # No other key names the estimator, and yet it is certified, compared and shown.
    assert set(data["decisions"]["estimator"]) == {curve["estimator"] for curve in data["curves"]} == set(estimators)
    for name in estimators:
        assert f'<option value="{name}">{name}</option>' in text
        assert f"By the confidence of {name}" in text
    compared = pl.read_csv(scratch.folder / "reports" / "tables" / "comparisons.csv")
    assert set(compared["first_estimator"]) == set(estimators)
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
    scratch.change("study", value={"models": [MODEL], "schemes": SCHEMES, "shifts": [], "estimators": ["selector"]})
    scratch.run()
    assert made(scratch) == before - {"mixtures", "selector_gain", "quantization"}
    table = pl.read_csv(scratch.folder / "reports" / "tables" / "comparisons.csv")
    assert set(table["first_estimator"]) == {"selector"} and set(table["second_scheme"]) == {"bf16"}
