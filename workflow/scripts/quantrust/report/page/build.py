"""Building the page from a study's tables; the same tables give the same bytes."""

import base64
import hashlib
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import polars as pl
import vl_convert
import yaml

from quantrust.artifacts.documents import writing_document
from quantrust.artifacts.tables import read_csv, read_table, table_notes
from quantrust.confidence.catalogue import has_learned
from quantrust.data.images import read_image
from quantrust.errors import QuantrustError
from quantrust.evaluation.decisions import SCHEMA as DECISIONS
from quantrust.evaluation.examples import KINDS
from quantrust.evaluation.fairness import SCHEMA as FAIRNESS
from quantrust.evaluation.limits import fewest_to_judge
from quantrust.evaluation.metric_records import OF_CORPUS
from quantrust.evaluation.shipping import SCHEMA as SHIPPING
from quantrust.files import read_object, sha256
from quantrust.quantization.scheme import UNQUANTIZED
from quantrust.report.page import charts
from quantrust.report.page.fairness import fairness_section
from quantrust.report.page.sections.entries import sections_of
from quantrust.report.page.verdicts import SIGNS, UNDER_SHIFT, VerdictTables, verdict_panels
from quantrust.report.page.words import (
    limits_of_data,
    limits_of_val,
    limits_of_verdicts,
    listed,
    percent,
    span,
    summary,
)
from quantrust.report.published import read_published
from quantrust.report.results import distinct, in_distribution, pick, read_tables, whole_test_sets
from quantrust.report.tables.published_importance import CAVEATS, OWN, PARTS
from quantrust.report.tables.published_importance import SCHEMA as SHARES
from quantrust.report.wording import (
    in_words,
    item,
    items,
    metric_label,
    one_decimal,
    quality_name,
    signed,
    threshold_in_words,
    told_apart,
)

TEMPLATES = Path(__file__).parent
VEGA_LITE = "6.4"
CURVE_POINTS = 100
"""Points that a curve is drawn with on the page; half of what is stored."""
LIBRARIES = ("jinja2", "numpy", "polars", "vl-convert-python")
COVERAGE = "coverage_at_risk_"


@dataclass(frozen=True)
class Sources:
    """Files that the page is built from; those of variants by model and scheme.

    Attributes
    ----------
    metrics, curves, scores : mapping of (str, str) to str or Path
    checkpoints : mapping of (str, str) to str or Path
        Folders with a `quantization.json`.
    features : mapping of (str, str, str) to str or Path
        By model, scheme and dataset; only their metadata is read.
    questions : mapping of str to str or Path
        By dataset.
    decisions, shipping, sizes, data : str or Path
        The CSV files beside the page, whose values it shows.
    comparisons, examples : str or Path
        Parquet files.
    figures : mapping of str to str or Path
        PNG files by the figures' names, in the order in which they are shown.
    fairness : str or Path, optional
        The CSV file beside the page with the groups of questions; none where the study has no groupings.
    published : str or Path, optional
        The CSV file beside the page with the numbers that the paper prints; none where it prints none of the study's
        variants.
    reference : str or Path, optional
        Where the paper's numbers are from; wanted with `published`.
    shares : str or Path, optional
        The CSV file beside the page with shares of parts beside the published ones; none where the study has no grid of
        vision, connector and language model.
    """

    metrics: Mapping[tuple[str, str], str | Path]
    curves: Mapping[tuple[str, str], str | Path]
    scores: Mapping[tuple[str, str], str | Path]
    checkpoints: Mapping[tuple[str, str], str | Path]
    features: Mapping[tuple[str, str, str], str | Path]
    questions: Mapping[str, str | Path]
    decisions: str | Path
    shipping: str | Path
    sizes: str | Path
    data: str | Path
    comparisons: str | Path
    examples: str | Path
    figures: Mapping[str, str | Path]
    fairness: str | Path | None = None
    published: str | Path | None = None
    reference: str | Path | None = None
    shares: str | Path | None = None


def write_page(
    sources: Sources,
    out_path: str | Path,
    *,
    captions: Mapping[str, str],
    config: dict[str, Any],
    workflow: Mapping[str, str],
) -> None:
    """Write the page: one HTML file that asks for nothing else.

    Parameters
    ----------
    sources : Sources
    out_path : str or Path
        The HTML file.
    captions : mapping of str to str
        By the figures' names.
    config : dict
        The study's config, which the page also shows.
    workflow : mapping of str to str
        Versions of what ran the study, for the provenance.
    """
    tables = VerdictTables(
        # With their own types: a column may be empty as far as any number of rows that one could look at.
        kept=read_csv(sources.shipping, schema=SHIPPING),
        sizes=read_csv(sources.sizes),
        decisions=read_csv(sources.decisions, schema=DECISIONS),
    )
    values = {
        "style": _asset("page.css"),
        "script": _asset("page.js"),
        "library": _script(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)),
        "data": _json(_data(sources, tables, config)),
        **_from_config(config),
        **_from_tables(sources, tables, config),
        "figures": [_figure(name, path, captions[name]) for name, path in sources.figures.items()],
        "checkpoints": [_checkpoint(*variant, Path(folder)) for variant, folder in sources.checkpoints.items()],
        "provenance": _provenance(sources, workflow),
    }
    text = _environment().get_template("page.html").render(values, sections=sections_of(values))
    with writing_document(out_path) as partial:
        partial.write_text(text, encoding="utf-8")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "in_words": in_words, "bytes": _bytes, "unbroken": _unbroken}
    environment.filters |= {"signed": signed, "listed": listed, "one_decimal": one_decimal}
    environment.globals |= {"span": span, "signs": SIGNS, "under_shift": UNDER_SHIFT}
    environment.globals |= {"item": item(), "items": items(), "quality_name": quality_name(), "label": metric_label}
    return environment


def _data(sources: Sources, tables: VerdictTables, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page's script fills tables, charts and examples from."""
    id_dataset, level = config["study"]["id_dataset"], config["evaluation"]["confidence_level"]
    decisions, shipping = tables.decisions, config["report"]["shipping"]
    schemes, estimators = distinct(decisions, "scheme"), distinct(decisions, "estimator")
    return {
        "decisions": _columns(_with_thresholds_in_words(decisions)),
        "fewest": [
            {"limit": limit, "images": fewest_to_judge(limit, level)} for limit in sorted(set(decisions["risk_limit"]))
        ],
        "sizes": _columns(tables.sizes),
        "curves": _curves(sources, id_dataset, estimators),
        "mixtures": _mixtures(sources, id_dataset, estimators),
        "charts": {
            "curves": charts.risk_coverage(schemes),
            "mixtures": charts.mixtures(schemes, config["evaluation"]["id_shares"]),
        },
        "looks": charts.looks(schemes),
        "start": {"estimator": shipping["estimators"][0]},
        "item": item(),
        **_examples(sources),
    }


def _from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values of the templates that the config states."""
    return {
        "id_dataset": config["study"]["id_dataset"],
        "risks": config["evaluation"]["risks"],
        "level": config["evaluation"]["confidence_level"],
        "shipping": config["report"]["shipping"],
        "delta": config["certification"]["delta"],
        "shipped_delta": config["bundles"]["delta"],
        "splits": config["certification"]["splits"],
        "learned": has_learned(config["study"]["estimators"]),
        "unquantized": UNQUANTIZED,
        "config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=100),
    }


def _from_tables(sources: Sources, tables: VerdictTables, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return those values of the templates that the study's tables hold."""
    id_dataset, level = config["study"]["id_dataset"], config["evaluation"]["confidence_level"]
    kept, sizes, decisions = tables.kept, tables.sizes, tables.decisions
    shipping, asked = config["report"]["shipping"], read_csv(sources.data)
    questions = decisions.unique("dataset", keep="first", maintain_order=True).select("dataset", "n")
    panels = verdict_panels(tables, config)
    metrics = in_distribution(read_tables(sources.metrics.values(), pl.col("dataset") == id_dataset), id_dataset)
    return {
        "models": distinct(decisions, "model"),
        "schemes": distinct(decisions, "scheme"),
        "datasets": distinct(decisions, "dataset"),
        "shifts": [name for name in distinct(decisions, "dataset") if name != id_dataset],
        "estimators": distinct(decisions, "estimator"),
        "limits": sorted(set(decisions["risk_limit"])),
        "panels": panels,
        "limits_of_verdicts": limits_of_verdicts(shipping, id_dataset, level, panels[0].judged),
        "limits_of_data": [
            *limits_of_val(decisions, id_dataset, shipping["risk"], level),
            *limits_of_data(asked, id_dataset, has_learned(config["study"]["estimators"])),
        ],
        "summary": summary(kept, sizes, decisions, read_table(sources.comparisons), metrics, id_dataset, config),
        "kept": _kept(pick(kept, dataset=id_dataset), sizes, shipping["risk"]),
        "asked": asked.to_dicts(),
        "published": _published(sources, id_dataset),
        "shares": _shares(sources),
        "fairness": _fairness(sources, id_dataset, config),
        "questions": dict(questions.iter_rows()),
    }


def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _script(code: str) -> str:
    """Return JavaScript as it may stand in an HTML script element."""
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _json(value: Any) -> str:
    """Return JSON as it may stand in an HTML script element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _with_thresholds_in_words(decisions: pl.DataFrame) -> pl.DataFrame:
    """Add what the page shows of the thresholds, beside the whole numbers."""
    return decisions.with_columns(
        pl.Series(f"{name}_shown", map(threshold_in_words, decisions[name]), dtype=pl.String)
        for name in ("threshold", "certified_threshold")
    )


def _columns(table: pl.DataFrame) -> dict[str, list[Any]]:
    return {name: table[name].to_list() for name in table.columns}


def _rounded(values: pl.Series) -> list[float | None]:
    return values.round(4).to_list()


def _curves(sources: Sources, id_dataset: str, estimators: Sequence[str]) -> list[dict[str, Any]]:
    # Curves of mixtures and of other estimators are most of all rows.
    share = pl.col("id_share")
    wanted = pl.col("estimator").is_in(estimators) & (share.is_null() | share.is_in([0.0, 1.0]))
    table = whole_test_sets(read_tables(sources.curves.values(), wanted), id_dataset)
    keys = ["model", "scheme", "estimator", "dataset"]
    records = []
    for values, curve in table.group_by(keys, maintain_order=True):
        # The last point is full coverage.
        every = max(1, curve.height // CURVE_POINTS)
        thinned = curve.sort("coverage").reverse().gather_every(every).reverse()
        numbers = {name: _rounded(thinned[name]) for name in ("coverage", "risk", "low", "high")}
        records.append(dict(zip(keys, values, strict=True)) | numbers)
    return records


def _mixtures(sources: Sources, id_dataset: str, estimators: Sequence[str]) -> list[dict[str, Any]]:
    table = read_tables(
        sources.metrics.values(),
        pl.col("estimator").is_in(estimators)
        & (pl.col("dataset") != id_dataset)
        & pl.col("id_share").is_not_null()
        & pl.col("metric").is_in(["accuracy", "coverage_at_risk"]),
    )
    parameter = pl.col("parameter").cast(pl.String)
    name = pl.when(parameter.is_null()).then(pl.col("metric")).otherwise("coverage_at_risk " + parameter)
    columns = ["model", "scheme", "estimator", "dataset", "id_share", "metric", "value", "low", "high"]
    table = table.with_columns(name.alias("metric"), pl.col("value", "low", "high").round(4)).select(columns)
    return table.to_dicts()


def _picture_name(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha256(content).hexdigest()[:16]


def _examples(sources: Sources) -> dict[str, Any]:
    table = read_table(sources.examples)
    columns = ("picture", "found")
    names = {column: [_picture_name(content) for content in table[column]] for column in columns}
    pictures = {
        name: f"data:image/webp;base64,{base64.b64encode(content).decode()}"
        for column in columns
        for name, content in zip(names[column], table[column], strict=True)
        if name is not None
    }
    named = (pl.Series(column, names[column], dtype=pl.String) for column in columns)
    rows = table.drop(columns).with_columns(*named, pl.col("quality").round(3)).to_dicts()
    for row in rows:
        row["shown"] = told_apart(row["confidence"], row["threshold"])
    return {"examples": rows, "pictures": pictures, "kinds": KINDS}


def _kept(kept: pl.DataFrame, sizes: pl.DataFrame, risk: float) -> list[dict[str, Any]]:
    """Return a row per variant of the table of what is kept: bytes, metrics of answers, coverage by estimators."""
    keys = ["model", "scheme"]
    # The answers, and with them the accuracy, are the same under every estimator.
    rows = kept.filter(pl.col("metric") == "accuracy").unique(keys, keep="first", maintain_order=True)
    rows = rows.join(sizes.select(*keys, "share_of_bf16"), on=keys, how="left", maintain_order="left")
    coverage = pick(kept, metric="coverage_at_risk", parameter=risk)
    answers = kept.filter(pl.col("metric").is_in(OF_CORPUS)).unique(
        [*keys, "metric"], keep="first", maintain_order=True
    )
    return [
        row
        | {
            "answers": [row, *pick(answers, model=row["model"], scheme=row["scheme"]).to_dicts()],
            "coverages": pick(coverage, model=row["model"], scheme=row["scheme"]).to_dicts(),
        }
        for row in rows.to_dicts()
    ]


def _fairness(sources: Sources, id_dataset: str, config: dict[str, Any]) -> dict[str, Any] | None:
    """Return the section on groups of questions; None where the study has no groupings."""
    if sources.fairness is None:
        return None
    return fairness_section(read_csv(sources.fairness, schema=FAIRNESS), id_dataset, config)


def _published(sources: Sources, id_dataset: str) -> dict[str, Any] | None:
    """Return the table beside the paper's numbers, a row per model, scheme and estimator; None where there is none."""
    if sources.published is None or sources.reference is None:
        return None
    table = read_csv(sources.published, infer_schema_length=None)
    # A row may lack some metrics, so that the order of their first rows is not that of the paper's columns.
    metrics = sorted(distinct(table, "metric"), key=lambda name: (name.startswith(COVERAGE), name))
    keys = ["model", "scheme", "estimator"]
    return {
        "source": read_published(sources.reference, id_dataset).source,
        "n": table["n"][0],
        "metrics": {name: _heading(name) for name in metrics},
        "rows": [
            dict(zip(keys, values, strict=True)) | {"numbers": {row["metric"]: row for row in found.to_dicts()}}
            for values, found in table.group_by(keys, maintain_order=True)
        ],
    }


def _shares(sources: Sources) -> dict[str, Any] | None:
    """Return the shares of parts beside the published ones; None where there are none."""
    if sources.shares is None:
        return None
    rows = read_csv(sources.shares, schema=SHARES).to_dicts()
    unequal = any(row["equal_levels"] is False for row in rows)
    return {"parts": PARTS, "caveats": CAVEATS, "rows": [_of_stratum(row) for row in rows], "unequal": unequal}


def _of_stratum(row: Mapping[str, Any]) -> dict[str, Any]:
    own = row["source"].startswith(OWN)
    metric = quality_name() if own and row["metric"] == "accuracy" else row["metric"]
    kept = {key: row[key] for key in ("model", "method", "source", "least_bits", "sd", "equal_levels")}
    return {**kept, "metric": metric, "shares": [_share(row, part) for part in PARTS]}


def _share(row: Mapping[str, Any], part: str) -> dict[str, str]:
    """Return what a cell shows of a part; of a share that is not determined, the interval alone."""
    share, low, high = (row[name] for name in (part, f"{part}_low", f"{part}_high"))
    between = "" if low is None else f"{low:.0f} to {high:.0f}"
    return {"shown": f"{share:.0f}" if share is not None else "open" if between else "", "between": between}


def _heading(metric: str) -> str:
    """Return what a metric of the table beside the paper's numbers is called.

    Examples
    --------
    >>> _heading("accuracy"), _heading("ece"), _heading("coverage_at_risk_0.01")
    ('Accuracy', 'ECE', 'C@1 %')
    """
    if metric.startswith(COVERAGE):
        return metric_label("coverage_at_risk", float(metric.removeprefix(COVERAGE)))
    return metric_label(metric)


def _checkpoint(model: str, scheme: str, folder: Path) -> dict[str, Any]:
    record = read_object(folder / "quantization.json")
    layers = pl.DataFrame(record["layers"], infer_schema_length=None)
    keys = ["component", "layer_type", "bits", "group", "reason"]
    plan = (
        layers.with_columns(
            (pl.col("rows") * pl.col("columns")).alias("weights"), pl.col("relative_error").cast(pl.Float64)
        )
        .group_by(keys, maintain_order=True)
        .agg(pl.len().alias("layers"), pl.col("weights").sum(), pl.col("relative_error").mean())
    )
    return {
        "model": model,
        "scheme": scheme,
        "bytes": record["bytes"],
        "calibration": record["calibration"],
        "plan": plan.to_dicts(),
        "sha256": record["sha256"],
    }


def _figure(name: str, path: str | Path, caption: str) -> dict[str, Any]:
    """Return what the page shows of a figure: its picture without loss and in fewer bytes, and its caption."""
    try:
        picture = read_image(path)
    except QuantrustError as error:
        raise QuantrustError(f"{path}: {error}; draw the figure again") from None
    stored = io.BytesIO()
    picture.save(stored, "WEBP", lossless=True)
    return {
        "name": name,
        "title": name.replace("_", " ").capitalize(),
        "caption": " ".join(caption.split()),
        "picture": f"data:image/webp;base64,{base64.b64encode(stored.getvalue()).decode()}",
        "width": picture.width,
        "height": picture.height,
    }


def _unbroken(text: str) -> str:
    """Keep percent signs on the line of their numbers."""
    return text.replace(" %", "\u00a0%")


def _bytes(count: int) -> str:
    """Return a number of bytes in words.

    Examples
    --------
    >>> _bytes(848888), _bytes(16_000_000_000)
    ('0.85 MB', '16.00 GB')
    """
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def _provenance(sources: Sources, workflow: Mapping[str, str]) -> dict[str, Any]:
    versions = dict(workflow)
    recorded: dict[str, set[str]] = {"torch": set(), "transformers": set()}
    for path in sources.features.values():
        metadata = table_notes(path)
        for name, found in recorded.items():
            found.add(metadata[name])
    versions |= {f"{name}, which made the features": " and ".join(sorted(found)) for name, found in recorded.items()}
    versions |= {"python, which built this page": platform.python_version()}
    versions |= {f"{name}, which built this page": version(name) for name in LIBRARIES}
    versions["vega-lite, in this page"] = VEGA_LITE
    files: dict[str, str] = {}
    for kind, paths in ((items(), sources.questions), ("scores", sources.scores), ("metrics", sources.metrics)):
        for key, path in paths.items():
            files[f"{kind} of {key if isinstance(key, str) else '/'.join(key)}"] = sha256(path)
    return {"versions": versions, "files": files}
