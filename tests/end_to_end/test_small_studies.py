"""Studies that leave something out, or bring an estimator or a quantized checkpoint, are whole with no other key."""

import json
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from quantrust.artifacts.tables import read_table
from quantrust.quantization.export import export_checkpoint
from study_workspace import ROOT, Workspace

pytestmark = pytest.mark.slow

ID_DATASET, MODEL = "scenes", "adversary"
SCHEMES = ["bf16", "hqq-w3g32-full"]
OTHERS = "others-hqq"
"""What a scheme is called whose checkpoint is the export of the second."""


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


KEYS = ("model", "estimator", "second_estimator", "dataset", "metric", "measure", "parameter", "risk_limit", "delta")


def of_variant(study: Workspace, table: str, scheme: str) -> pl.DataFrame:
    """Return what the rows of a table of the report that are of a scheme are about."""
    rows = pl.read_csv(study.folder / "reports" / "tables" / f"{table}.csv", infer_schema_length=None)
    of_scheme = rows.filter(pl.col("scheme" if "scheme" in rows.columns else "first_scheme") == scheme)
    return of_scheme.select(key for key in KEYS if key in rows.columns)


def test_a_study_without_shifts_and_with_an_estimator_and_a_checkpoint_of_ones_own_is_whole(scratch: Workspace) -> None:
    before = without_report(scratch)
    checkpoints, others = scratch.folder / "data" / "checkpoints" / MODEL, scratch.folder / "my" / "hqq"
    export_checkpoint(checkpoints / SCHEMES[1], "hqq", others)
    schemes = [*SCHEMES, {"external": {"path": "my/hqq", "name": OTHERS}}]
    own = Path("workflow", "scripts", "quantrust", "confidence", "estimators", "first_token.py")
    shutil.copy(ROOT / "docs" / "examples" / own.name, scratch.folder / own)
    estimators = ["maxprob", "selector", "first-token", "first-token+platt"]
    scratch.change("study", value={"models": [MODEL], "schemes": schemes, "shifts": [], "estimators": estimators})
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

    # The checkpoint of others has the codes of the scheme that it was exported from, and its embedding in bfloat16: it
    # answers alike, and every table has the same rows of it.
    ours, theirs, unquantized = (
        read_table(scratch.folder / "data" / "features" / MODEL / name / f"{ID_DATASET}.parquet")["joint_log_prob"]
        for name in (SCHEMES[1], OTHERS, "bf16")
    )
    assert (ours - theirs).abs().mean() < 0.05 * (ours - unquantized).abs().mean()
    of_schemes = ("sizes", "accuracy", "reliability", "selector", "certification", "decisions", "shipping", "drift")
    for name in (*of_schemes, "comparisons"):
        rows = of_variant(scratch, name, OTHERS)
        assert not rows.is_empty() and rows.equals(of_variant(scratch, name, SCHEMES[1])), name
    sizes = pl.read_csv(scratch.folder / "reports" / "tables" / "sizes.csv").filter(scheme=OTHERS)
    assert sizes["bytes_on_disk"].to_list() == [(checkpoints / OTHERS / "model.safetensors").stat().st_size]
    assert f'<option value="{OTHERS}">{OTHERS}</option>' in text

    # New times of its files, and an edit of what reads another format, rerun nothing; other bytes and an edit of what
    # reads this one rerun what is of it.
    readers = scratch.folder / "workflow" / "scripts" / "quantrust" / "quantization" / "readers"
    with open(readers / "gptq.py", "a") as file:
        file.write("# edited\n")
    for path in others.iterdir():
        os.utime(path)
    assert scratch.plan() == (Counter(), set())
    weights = (others / "model.safetensors").read_bytes()
    for path, content in (
        (others / "model.safetensors", weights[:-1] + bytes([weights[-1] ^ 1])),
        (readers / "hqq.py", (readers / "hqq.py").read_bytes() + b"# edited\n"),
    ):
        unchanged = path.read_bytes()
        path.write_bytes(content)
        os.utime(path, ns=(0, 0))
        jobs, written = scratch.plan()
        path.write_bytes(unchanged)
        followed = ("import_checkpoint", "dump_features", "train_selector", "write_scores", "decide_variant")
        assert [jobs[rule] for rule in followed] == [1] * len(followed) and not jobs["quantize_model"]
        assert all(f"/{OTHERS}" in one or one.startswith(("data/studies/", "reports/")) for one in written)


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
