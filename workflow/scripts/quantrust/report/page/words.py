"""The page's summary in words: what every sentence says is read off the study's tables."""

import polars as pl

from quantrust.evaluation.shipping import FAILS, MEETS, OPEN
from quantrust.quantization.scheme import UNQUANTIZED
from quantrust.report.results import distinct, pick

SIGNIFICANT = 0.05
"""Corrected p-value below which a difference is called one."""


def percent(value: float | None, places: int = 1) -> str:
    """Return a fraction as a percentage; zeros at the end of the decimals are left out.

    Examples
    --------
    >>> percent(0.05), percent(0.125), percent(1 / 3), percent(None)
    ('5 %', '12.5 %', '33.3 %', 'none')
    """
    if value is None:
        return "none"
    digits = f"{100 * value:.{places}f}"
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return f"{digits} %"


def span(low: float | None, high: float | None) -> str:
    """Return an interval of fractions in percent.

    Examples
    --------
    >>> span(0.912, 1.0)
    '91.2 to 100 %'
    """
    if low is None or high is None:
        return "undefined"
    return f"{percent(low).removesuffix(' %')} to {percent(high)}"


def criterion(shipping: dict, level: float) -> str:
    """Say what a scheme has to keep."""
    return (
        f"A scheme meets the shipping criterion if, in distribution, it keeps at least {percent(shipping['keeps'])} of "
        f"the unquantized model's coverage at a risk limit of {percent(shipping['risk'])}, by the confidence of "
        f"{shipping['estimator']}, and the whole {percent(level)} interval of what it keeps lies there. It does not "
        "meet the criterion if the whole interval lies below; otherwise these questions do not settle it."
    )


def summary(
    kept: pl.DataFrame, sizes: pl.DataFrame, decisions: pl.DataFrame, comparisons: pl.DataFrame, home: str, study: dict
) -> list[tuple[str, list[str]]]:
    """Sum the study up, model by model.

    Parameters
    ----------
    kept : polars.DataFrame
        The table of `quantrust.evaluation.shipping`.
    sizes : polars.DataFrame
        The table of sizes.
    decisions : polars.DataFrame
        The table of `quantrust.evaluation.decisions`, all variants.
    comparisons : polars.DataFrame
        The table of `quantrust.evaluation.comparison.write_comparisons`.
    home : str
        The dataset in distribution.
    study : dict
        The config.

    Returns
    -------
    list of (str, list of str)
        For each model its name and its sentences.
    """
    shipping = study["report"]["shipping"]
    here = decisions.filter((pl.col("estimator") == shipping["estimator"]) & (pl.col("risk_limit") == shipping["risk"]))
    return [
        (
            model,
            [
                *_verdicts(pick(kept, model=model, dataset=home), pick(sizes, model=model), shipping["risk"]),
                *_shifts(pick(here, model=model).filter(pl.col("dataset") != home), shipping["risk"]),
                _certificates(pick(here, model=model, dataset=home), shipping, study["certification"]["delta"]),
                *_estimators(comparisons, model, home),
            ],
        )
        for model in distinct(decisions, "model")
    ]


def _verdicts(kept: pl.DataFrame, sizes: pl.DataFrame, risk: float) -> list[str]:
    if kept.is_empty():
        return [f"The study has no {UNQUANTIZED}, which the shipping criterion compares with."]
    accuracy = pick(kept, metric="accuracy").select("scheme", accuracy_kept="kept")
    rows = (
        pick(kept, metric="coverage_at_risk")
        .join(accuracy, on="scheme")
        .join(sizes.select("scheme", "share_of_bf16"), on="scheme")
        .sort("share_of_bf16", "kept", descending=[False, True], maintain_order=True)
    )
    sentences = []
    meets, fails, undecided = (pick(rows, verdict=name) for name in (MEETS, FAILS, OPEN))
    if meets.is_empty():
        sentences.append("No scheme is shown to meet the shipping criterion.")
    else:
        others = {1: "", 2: "; one other meets it too"}.get(meets.height, f"; {meets.height - 1} others meet it too")
        best = _keeps(meets.row(0, named=True), risk)
        sentences.append(f"The smallest scheme that meets the shipping criterion is {best}{others}.")
    if not fails.is_empty():
        mildest = fails.sort("share_of_bf16", "kept", descending=True, maintain_order=True).row(0, named=True)
        others = {1: "", 2: "; nor does one other"}.get(fails.height, f"; nor do {fails.height - 1} others")
        sentences.append(f"{_keeps(mildest, risk)}, does not meet it{others}.")
    if not undecided.is_empty():
        count = "one scheme" if undecided.height == 1 else f"{undecided.height} schemes"
        names = ", ".join(undecided["scheme"])
        sentences.append(f"For {count} the {undecided['n'][0]:,} questions do not settle it: {names}.")
    return sentences


def _keeps(row: dict, risk: float) -> str:
    return (
        f"{row['scheme']}, which keeps {percent(row['accuracy_kept'])} of accuracy and {percent(row['kept'])} of "
        f"C@{percent(risk)} ({span(row['kept_low'], row['kept_high'])}) at {percent(row['share_of_bf16'])} of the bytes"
    )


def _shifts(rows: pl.DataFrame, risk: float) -> list[str]:
    sentences = []
    for dataset in distinct(rows, "dataset"):
        answering = pick(rows, dataset=dataset).filter(pl.col("deployed_risk").is_not_null())
        if answering.is_empty():
            continue
        broken = answering.filter(pl.col("deployed_risk_low") > risk).height
        worst = answering["deployed_risk"].max()
        sentences.append(
            f"On {dataset} the threshold set in distribution breaks the {percent(risk)} limit for {broken} of "
            f"{answering.height} schemes (whole interval of the risk above it); the risk reaches {percent(worst)}."
        )
    return sentences


def _certificates(rows: pl.DataFrame, shipping: dict, delta: float) -> str:
    certified = rows.filter(pl.col("certified_threshold").is_not_null())
    return (
        f"A threshold is certified for a risk limit of {percent(shipping['risk'])} (in distribution, except with "
        f"probability {percent(delta)}) for {certified.height} of {rows.height} schemes."
    )


def _estimators(comparisons: pl.DataFrame, model: str, home: str) -> list[str]:
    rows = comparisons.filter(
        (pl.col("first_model") == model)
        & (pl.col("first_scheme") == pl.col("second_scheme"))
        & (pl.col("dataset") == home)
        & (pl.col("metric") == "aurc")
        & pl.col("p_holm").is_not_null()
    )
    sentences = []
    for first, second in rows.select("first_estimator", "second_estimator").unique(maintain_order=True).iter_rows():
        pairs = pick(rows, first_estimator=first, second_estimator=second)
        found = pairs.filter(pl.col("p_holm") < SIGNIFICANT)
        better, worse = found.filter(pl.col("difference") < 0).height, found.filter(pl.col("difference") > 0).height
        sentences.append(
            f"In distribution {first} ranks answers better than {second} (lower AURC, corrected p below "
            f"{SIGNIFICANT}) for {better} of {pairs.height} schemes and worse for {worse}; the rest is not told apart."
        )
    return sentences
