"""The model card of a bundle: the README of its folder, as the Hugging Face hub reads it, from the study's figures."""

from typing import Any

import polars as pl
from huggingface_hub import EvalResult, ModelCardData

from quantrust.bundle.record import BundleRecord, percent
from quantrust.evaluation.metric_records import METRICS as RECORDS
from quantrust.evaluation.metric_records import metric_named
from quantrust.evaluation.operating_points import Measured, OperatingPoint
from quantrust.report.item_words import PICTURE
from quantrust.report.wording import counted_about, drawn, item, items, quality_name, speaking_of

TASKS = {PICTURE: ("image-to-text", "image captioning")}
"""Of items that are no questions, what the hub calls the task, and its name."""
QUESTIONS = ("visual-question-answering", "visual question answering")
METRICS = ("accuracy", *(metric.name for metric in RECORDS if metric.of_corpus), "aurc", "ece")
"""Metrics of the whole test set, by their names in a study, that the card shows."""
NAMES = {
    "aurc": "area under the risk-coverage curve (lower is better)",
    "ece": "expected calibration error (lower is better)",
}


def _metric_name(name: str) -> str:
    if name == "accuracy":
        return f"{quality_name()} (1 = every answer fully right)"
    return NAMES.get(name) or f"{metric_named(name).label} (higher is better)"


def model_card(record: BundleRecord, quantization: dict[str, Any], metrics: pl.DataFrame) -> str:
    """Return the model card of a bundle.

    Parameters
    ----------
    record : BundleRecord
    quantization : dict
        The checkpoint's own record.
    metrics : polars.DataFrame
        The variant's metrics table.
    """
    with speaking_of(record.words):
        return _text(record, quantization, _whole_test_set(record, metrics))


def _text(record: BundleRecord, quantization: dict[str, Any], found: dict[str, dict[str, Any]]) -> str:
    parts = [
        f"---\n{_metadata(record, quantization, found)}\n---",
        f"# {record.name}, with abstention",
        _summary(record, quantization),
        "## Use",
        _use(record),
        "## Operating points",
        _points(record),
        "## Out of distribution",
        _shifts(record),
        "## The whole test set",
        _whole(record, found),
        "## Limits",
        _limits(record),
    ]
    return "\n\n".join(parts) + "\n"


def _whole_test_set(record: BundleRecord, metrics: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the rows of the ID test set under the bundle's estimator, by metric."""
    rows = metrics.filter(
        pl.col("estimator") == record.estimator,
        pl.col("dataset") == record.id_dataset,
        pl.col("id_share") == 1.0,
        pl.col("metric").is_in(list(METRICS)),
        pl.col("value").is_not_null(),
    )
    by_name = {row["metric"]: row for row in rows.iter_rows(named=True)}
    return {name: by_name[name] for name in METRICS if name in by_name}


def _metadata(record: BundleRecord, quantization: dict[str, Any], found: dict[str, dict[str, Any]]) -> str:
    dataset = {"dataset_type": record.id_dataset, "dataset_name": record.id_dataset, "dataset_split": "test"}
    pipeline, task_name = TASKS.get(record.item, QUESTIONS)
    task = {"task_type": pipeline, "task_name": task_name}
    results = [
        EvalResult(
            **task,
            **dataset,
            metric_type=quality_name() if name == "accuracy" else name,
            metric_name=_metric_name(name),
            metric_value=row["value"],
        )
        for name, row in found.items()
    ]
    for point in record.points:
        for one in point.measured[:1]:
            for name, value in (("coverage", one.coverage), ("risk", one.risk)):
                if value is not None:
                    what = f"{name} under the {_kind(point)} threshold for a risk of {percent(point.risk_limit)}"
                    kind = f"{name}_at_{point.kind}_threshold_{point.risk_limit!r}"
                    results.append(
                        EvalResult(**task, **dataset, metric_type=kind, metric_name=what, metric_value=value)
                    )
    card = ModelCardData(
        base_model=record.base_model,
        license=record.license,
        pipeline_tag=pipeline,
        library_name="quantrust",
        tags=["quantrust", "quantized", "selective-prediction", "abstention"],
        datasets=[record.id_dataset],
        metrics=[quality_name()],
        model_name=record.name,
        eval_results=results,
        base_model_relation="quantized" if record.base_model else None,
        quantization=_quantization(quantization),
    )
    return card.to_yaml().strip()


def _quantization(quantization: dict[str, Any]) -> dict[str, Any]:
    settings, size = quantization["settings"], quantization["bytes"]
    taken = [row for row in quantization["layers"] if row["bits"] is not None]
    widths: dict[str, set[int]] = {}
    for row in taken:
        widths.setdefault(row["component"], set()).add(row["bits"])
    groups = {row["group"] for row in taken}
    return {
        "scheme": quantization["scheme"],
        "method": settings.get("method"),
        # what others quantized has no table; its layers say how
        "group_size": settings.get("group_size", groups.pop() if len(groups) == 1 else None),
        "bits": {component: found.pop() for component, found in widths.items() if len(found) == 1},
        "bits_per_weight": size["model_bits_per_weight"],
        "bytes": size["weights_file"],
    }


def _summary(record: BundleRecord, quantization: dict[str, Any]) -> str:
    size = quantization["bytes"]
    base = f"`{record.base_model}`" if record.base_model else f"the model `{record.operating_points.model}`"
    if record.license:
        licence = f"The base model's licence is `{record.license}`; it holds for these weights too."
    else:
        licence = "The study names no licence for the base model: look it up before you use or share these weights."
    return (
        f"A bundle: {base} under the scheme `{record.operating_points.scheme}`, with the confidence estimator "
        f"`{record.estimator}` and thresholds on it. {_what_it_does(record)}, or abstains where its "
        f"confidence is below a threshold. Its weights take {size['weights_file'] / 1e6:,.1f} MB, "
        f"{size['model_bits_per_weight']:.2f} bits a weight ({size['bfloat16'] / 1e6:,.1f} MB in bfloat16). {licence}"
    )


def _what_it_does(record: BundleRecord) -> str:
    if record.asked is None:
        return "It answers a question about an image"
    shown = f"asked `{record.asked}`" if record.asked else "without a question"
    return f"It is shown a picture, {shown}, and answers"


def _use(record: BundleRecord) -> str:
    risk = repr(record.risk)
    option, argument = (' --question "what is it?"', '"what is it?", ') if record.asked is None else ("", "")
    return (
        '```sh\npip install "quantrust[models]"\n'
        f"quantrust answer . --image picture.png{option} --risk {risk}\n```\n\n"
        '```python\nfrom quantrust import Bundle\n\nbundle = Bundle.load(".")\n'
        f'found = bundle.answer("picture.png", {argument}risk={risk})\n'
        "print(found.answer if found.answered else None, found.confidence, found.certified)\n```"
    )


def _points(record: BundleRecord) -> str:
    conditions = record.operating_points.conditions
    lines = [
        f"An answer is given if its confidence is at least the threshold. Measured on test {items()} of "
        f"`{record.id_dataset}`, on {conditions.device} with {conditions.dtype}, kernel {conditions.kernel} and "
        f"attention {conditions.attention}. `bundle.json` has the whole numbers.",
        "",
        "| risk limit | kind | threshold | set on | answers given | risk of these answers |",
        "|---|---|---|---|---|---|",
    ]
    for point in record.points:
        one = point.measured[0] if point.measured else None
        coverage, risk = ("not measured", "not measured") if one is None else (_coverage(one), _risk(one))
        where = f"{counted_about(point.questions, point.images)} of {point.dataset}, {point.split}"
        lines.append(
            f"| {percent(point.risk_limit)} | {_kind(point)} | `{point.threshold!r}` | {where} | {coverage} | {risk} |"
        )
    certification = record.operating_points.certification
    if certification is not None and any(point.certified for point in record.points):
        lines += [
            "",
            f"All certificates hold together except with probability {certification.delta!r}, for one {item()} an "
            f"image, of images drawn as those of `{certification.dataset}` were. Declared before: "
            f"{certification.schemes} scheme{'s' * (certification.schemes != 1)}, the estimators "
            f"{', '.join(certification.estimators)}, the risk limits "
            f"{', '.join(map(percent, certification.risk_limits))}. What each split was used "
            f"for: {certification.divided}.",
        ]
    else:
        lines += ["", "No threshold of this bundle is certified: those of val may exceed their limit by chance."]
    return "\n".join(lines)


def _shifts(record: BundleRecord) -> str:
    rows = [(point, one) for point in record.points for one in point.measured[1:]]
    if not rows:
        return (
            f"The study has no shifted dataset: what happens on other {drawn('or')} than those of "
            f"`{record.id_dataset}` was not measured, and no threshold promises anything there."
        )
    lines = [
        "No threshold and no certificate promises anything here. What the same thresholds did:",
        "",
        "| dataset | risk limit | kind | answers given | risk of these answers | limit |",
        "|---|---|---|---|---|---|",
    ]
    for point, one in rows:
        limits = f"| {percent(point.risk_limit)} | {_kind(point)} |"
        lines.append(f"| {one.dataset} {limits} {_coverage(one)} | {_risk(one)} | {_kept(point, one)} |")
    return "\n".join(lines)


def _kept(point: OperatingPoint, one: Measured) -> str:
    """Return whether a limit was kept, as far as the interval of the risk tells."""
    if one.risk is None or one.risk_low is None or one.risk_high is None:
        return "nothing to judge"
    if one.risk_low > point.risk_limit:
        return "**broken**"
    return "kept" if one.risk_high <= point.risk_limit else "not settled"


def _whole(record: BundleRecord, found: dict[str, dict[str, Any]]) -> str:
    if not found:
        return f"The study's metrics hold nothing of `{record.estimator}` on `{record.id_dataset}`."
    lines = ["Without abstention:", "", f"| metric | value | interval | {items()} |", "|---|---|---|---|"]
    for name, row in found.items():
        interval = "" if row["low"] is None else f"{row['low']:.4f} to {row['high']:.4f}"
        lines.append(f"| {_metric_name(name)} | {row['value']:.4f} | {interval} | {row['n']:,} |")
    return "\n".join(lines)


def _limits(record: BundleRecord) -> str:
    return "\n".join(
        [
            f"* All of this holds in distribution of `{record.id_dataset}`: for {drawn('and')} drawn as its "
            "own were. Yours are others. `quantrust recalibrate` sets thresholds on a sample of yours.",
            f"* Risk is a mean over the answers given. Single answers, and kinds of {items()}, may be worse.",
            "* Thresholds belong to the conditions above. Under others the bundle answers with `certified: false` and "
            "a note.",
            f"* {items().capitalize()} answered in other batches, or alone, get confidences that differ in their last "
            "digits, and a confidence that close to the threshold may fall on its other side.",
            f"* An answer ends after {record.settings.max_new_tokens} tokens.",
        ]
    )


def _kind(point: OperatingPoint) -> str:
    return "certified" if point.certified else "val"


def _coverage(one: Measured) -> str:
    """Return how many items were answered, and which share that is; the share has its interval."""
    return f"{one.answered:,} of {one.questions:,}: " + _share(one.coverage, one.coverage_low, one.coverage_high)


def _risk(one: Measured) -> str:
    return _share(one.risk, one.risk_low, one.risk_high)


def _share(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "undefined"
    return f"{100 * value:.1f} %" + ("" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})")
