"""The page's summary in words: what every sentence says is read off the study's tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from quantrust.evaluation.certification import fewest_faultless
from quantrust.evaluation.comparison import fewest_resamples
from quantrust.evaluation.limits import fewest_to_judge
from quantrust.evaluation.metric_records import Key
from quantrust.evaluation.shipping import FAILS, MEETS, OPEN, fewest_images
from quantrust.quantization.scheme import UNQUANTIZED
from quantrust.report.results import distinct, pick
from quantrust.report.wording import (
    SIGNIFICANT,
    counted,
    in_words,
    item,
    items,
    items_about,
    metric_label,
    quality_name,
)

Group = tuple[str, list[str]]
"""A heading and the sentences under it."""


def percent(value: float | None) -> str:
    """Return a measured fraction as a percentage with one decimal, as all of the page has it.

    Examples
    --------
    >>> percent(0.05), percent(1 / 3), percent(None)
    ('5.0 %', '33.3 %', 'none')
    """
    return "none" if value is None else f"{100 * value:.1f} %"


def span(low: float | None, high: float | None) -> str:
    """Return an interval of measured fractions in percent.

    Examples
    --------
    >>> span(0.912, 1.0)
    '91.2 to 100.0 %'
    """
    if low is None or high is None:
        return "undefined"
    return f"{percent(low).removesuffix(' %')} to {percent(high)}"


def limits_of_verdicts(shipping: Mapping[str, Any], id_dataset: str, level: float, verdicts: int) -> list[str]:
    """Say what a verdict means and how far it holds, in a sentence or two each.

    Parameters
    ----------
    shipping : mapping
        The shipping criterion of the config.
    id_dataset : str
        The ID dataset.
    level : float
        Confidence level of the intervals.
    verdicts : int
        Verdicts for one confidence and one risk limit.
    """
    keeps = in_words(shipping["keeps"])
    sentences = [
        f"A scheme ships if it keeps at least {keeps} of the coverage that {UNQUANTIZED} has at the risk limit, by the "
        f"same confidence, and the whole {in_words(level)} interval of what it keeps lies there. It fails if the "
        f"whole interval lies below. Otherwise these {items()} do not settle it.",
        f"Verdicts are in distribution, on {id_dataset}. On a shifted dataset a verdict holds, breaks or is not "
        "settled by the same criterion there.",
        "A threshold set on val has no guarantee. What it does on the test set is measured, with intervals.",
        "A certified threshold has one, in distribution. It holds for the schemes, confidences and limits that the "
        "config declared under bundles before the study, whichever of them is chosen after seeing the certificates. "
        "Whoever adds a scheme or limit, or another seed, after seeing results loses the guarantee.",
    ]
    if verdicts > 1:
        sentences.append(
            f"Each of the {verdicts:,} verdicts has an interval of its own, and of many verdicts some are wrong by "
            "chance. Whoever tries confidences and risk limits until a scheme ships makes that more likely: choose "
            "both before looking."
        )
    return sentences


def listed(names: Sequence[str]) -> str:
    """Join names as a sentence does.

    Examples
    --------
    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def summary(
    kept: pl.DataFrame,
    sizes: pl.DataFrame,
    decisions: pl.DataFrame,
    comparisons: pl.DataFrame,
    metrics: pl.DataFrame,
    id_dataset: str,
    study: Mapping[str, Any],
) -> list[tuple[str, list[Group]]]:
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
    metrics : polars.DataFrame
        The metrics in distribution of `quantrust.evaluation.variant.evaluate_variant`, all variants.
    id_dataset : str
        The ID dataset.
    study : mapping
        The config.

    Returns
    -------
    list of (str, list of (str, list of str))
        For each model its name and its sentences: those by each estimator of the shipping criterion, then those that
        compare estimators, then those that say how far another training moves a learned one.
    """
    shipping, level = study["report"]["shipping"], study["evaluation"]["confidence_level"]
    delta, resamples = study["certification"]["delta"], study["comparison"]["resamples"]
    here = decisions.filter(pl.col("risk_limit") == shipping["risk"])
    found = []
    for model in distinct(decisions, "model"):
        groups = []
        for estimator in shipping["estimators"]:
            deployed = pick(here, model=model, estimator=estimator)
            judged = pick(kept, model=model, dataset=id_dataset, estimator=estimator)
            sentences = [
                *_verdicts(judged, pick(sizes, model=model), shipping, level),
                *_thresholds(deployed, shipping["risk"], id_dataset, level),
                *_certificates(pick(deployed, dataset=id_dataset), shipping["risk"], delta),
            ]
            groups.append((f"By the confidence of {estimator}", sentences))
        compared = _estimators(comparisons, model, id_dataset, resamples)
        if compared:
            groups.append(("Estimators compared", compared))
        trained = _trainings(pick(metrics, model=model), shipping["risk"])
        if trained:
            groups.append(("Another training", trained))
        found.append((model, groups))
    return found


def limits_of_val(decisions: pl.DataFrame, id_dataset: str, risk: float, level: float) -> list[str]:
    """Say whether thresholds are set on so few images that where they lie is chance; nothing where they are not.

    Parameters
    ----------
    decisions : polars.DataFrame
        The table of `quantrust.evaluation.decisions`, all variants.
    id_dataset : str
        The ID dataset.
    risk : float
        The risk limit of the shipping criterion.
    level : float
        Confidence level of the intervals.
    """
    images, fewest = decisions["val_images"].max(), fewest_to_judge(risk, level)
    if images >= fewest:
        return []
    return [
        f"Thresholds are set on {_number(images, 'image')} of {id_dataset} in val. {too_few(fewest, risk)}, so that "
        "where they lie is chance."
    ]


def limits_of_data(asked: pl.DataFrame, id_dataset: str, learned: bool) -> list[str]:
    """Say what was left out, and which test images are not new to the Selector; nothing where there is nothing to say.

    Parameters
    ----------
    asked : polars.DataFrame
        The table of `quantrust.report.tables.data`.
    id_dataset : str
        The ID dataset.
    learned : bool
        Whether the study has a Selector.
    """
    sentences = []
    skipped = asked.filter(pl.col("skipped_questions") > 0)
    if not skipped.is_empty():
        parts = [
            f"{counted(row['skipped_questions'])} about {_number(row['skipped_images'], 'image')} in "
            f"{row['split']} of {row['dataset']}"
            for row in skipped.iter_rows(named=True)
        ]
        sentences.append(f"Left out of every variant, because images could not be read: {listed(parts)}.")
    shared = pick(asked, split="test").filter(pl.col("images_in_home_dev") > 0)
    if learned and not shared.is_empty():
        parts = [
            f"{row['images_in_home_dev']:,} of the {row['images']:,} test images of {row['dataset']}"
            for row in shared.iter_rows(named=True)
        ]
        sentences.append(
            f"The Selector trains on dev of {id_dataset}, which also holds {listed(parts)}; its results there are not "
            "on new images alone."
        )
    return sentences


def too_few(fewest: int, risk: float) -> str:
    """Say from how many images on a risk can be told from twice the risk.

    Examples
    --------
    >>> too_few(73, 0.05)
    'Fewer than 73 do not tell a risk of 5 % from one of 10 %'
    """
    return f"Fewer than {fewest:,} do not tell a risk of {in_words(risk)} from one of {in_words(2 * risk)}"


def few_images(questions: int, images: int, keeps: float, level: float) -> str:
    """Say that so many questions about so few images settle nothing about the shipping criterion.

    Examples
    --------
    >>> few_images(60, 10, 0.95, 0.95)
    'the 60 questions are about 10 images, and fewer than 73 do not tell a loss of 5 % from one of 10 %.'
    """
    return (
        f"the {counted(questions)} are about {_number(images, 'image')}, and fewer than "
        f"{fewest_images(keeps, level):,} do not tell a loss of {in_words(1 - keeps)} from one of "
        f"{in_words(2 - 2 * keeps)}."
    )


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _verdicts(kept: pl.DataFrame, sizes: pl.DataFrame, shipping: Mapping[str, Any], level: float) -> list[str]:
    if kept.is_empty():
        lacking = f"scheme beside {UNQUANTIZED}" if UNQUANTIZED in set(sizes["scheme"]) else UNQUANTIZED
        return [f"The study has no {lacking}, which the shipping criterion compares with."]
    risk, keeps = shipping["risk"], shipping["keeps"]
    questions, images = kept["n"][0], kept["images"][0]
    if images < fewest_images(keeps, level):
        return [f"Nothing can be said about the shipping criterion: {few_images(questions, images, keeps, level)}"]
    accuracy = pick(kept, metric="accuracy").select("scheme", accuracy_kept="kept")
    rows = (
        pick(kept, metric="coverage_at_risk", parameter=risk)
        .join(accuracy, on="scheme")
        .join(sizes.select("scheme", "share_of_bf16"), on="scheme")
        .sort("share_of_bf16", "kept", descending=[False, True], maintain_order=True)
    )
    sentences = []
    meets, fails, undecided = (pick(rows, verdict=name) for name in (MEETS, FAILS, OPEN))
    if meets.is_empty():
        sentences.append("No scheme is shown to meet the shipping criterion.")
    else:
        first = meets.filter(pl.col("share_of_bf16") == pl.col("share_of_bf16").min())
        what = _counted("smallest", first.height, "meets", "meet")
        sentences.append(
            f"{what} the shipping criterion, at {percent(first['share_of_bf16'][0])} of the bytes: {_keep(first, risk)}"
            f"{_others(meets.height - first.height, 'meets it too', 'meet it too')}."
        )
    if not fails.is_empty():
        last = fails.filter(pl.col("share_of_bf16") == pl.col("share_of_bf16").max())
        what = _counted("largest", last.height, "does not", "do not")
        sentences.append(
            f"{what}, at {percent(last['share_of_bf16'][0])} of the bytes: {_keep(last, risk)}"
            f"{_others(fails.height - last.height, 'does not either', 'do not either')}."
        )
    if not undecided.is_empty():
        count = "one scheme" if undecided.height == 1 else f"{undecided.height} schemes"
        names = ", ".join(_undecided(row) for row in undecided.iter_rows(named=True))
        sentences.append(f"For {count} the {undecided['n'][0]:,} {items()} do not settle it: {names}.")
    return sentences


def _undecided(row: Mapping[str, Any]) -> str:
    """Name a scheme, and where trainings judge it differently, how many of them do."""
    if row["members_meet"] == row["members_fail"] == 0 or row["members"] == 1:
        return row["scheme"]
    shown = (
        f"of {row['members']} trainings {row['members_meet']} are shown to meet it and {row['members_fail']} to fail"
    )
    return f"{row['scheme']} ({shown})"


def _trainings(metrics: pl.DataFrame, risk: float) -> list[str]:
    """Say how far the members of each learned estimator lie apart, over the schemes of a model."""
    sentences = []
    several = metrics.filter(pl.col("members").list.len() > 1)
    for estimator in distinct(several, "estimator"):
        here = pick(several, estimator=estimator)
        parts = []
        for metric, parameter in (("coverage_at_risk", risk), *PLAIN):
            same = pl.col("parameter").is_null() if parameter is None else pl.col("parameter") == parameter
            values = here.filter((pl.col("metric") == metric) & same)["members"].list
            apart = values.max() - values.min()
            if apart.count():
                parts.append(
                    f"in {metric_label(metric, parameter)} {100 * apart.median():.1f} and {100 * apart.max():.1f}"
                )
        sentences.append(
            f"The {here['members'].list.len()[0]} trainings of {estimator}, alike but for their seeds, lie apart in "
            f"distribution by so many points, in the median and the widest scheme: {'; '.join(parts)}."
        )
    return sentences


PLAIN: tuple[Key, ...] = (("aurc", None), ("ece", None))
"""Metrics by which another training is judged, beside the coverage at the criterion's limit."""


def _keep(rows: pl.DataFrame, risk: float) -> str:
    return "; ".join(
        f"{row['scheme']}, which keeps {percent(row['accuracy_kept'])} of {quality_name()} and {percent(row['kept'])} "
        f"of {metric_label('coverage_at_risk', risk)} ({span(row['kept_low'], row['kept_high'])})"
        for row in rows.iter_rows(named=True)
    )


def _counted(which: str, count: int, one: str, more: str) -> str:
    return (
        f"The {which} scheme that {one}" if count == 1 else f"The {count} {which} schemes, of equal size, that {more}"
    )


def _others(count: int, one: str, more: str) -> str:
    if count == 0:
        return ""
    return f"; one other {one}" if count == 1 else f"; {count} others {more}"


def _thresholds(rows: pl.DataFrame, risk: float, id_dataset: str, level: float) -> list[str]:
    """Say on which datasets thresholds of val keep their limit and on which they break it, in distribution first."""
    sentences = []
    fewest = fewest_to_judge(risk, level)
    for dataset in [id_dataset, *(name for name in distinct(rows, "dataset") if name != id_dataset)]:
        where = f"In distribution, on {dataset}," if dataset == id_dataset else f"On {dataset}"
        here = pick(rows, dataset=dataset)
        judged, few = (here.filter(chosen) for chosen in (pl.col("deployed_images") >= fewest, _answering_few(fewest)))
        if not judged.is_empty():
            broken = judged.filter(pl.col("deployed_risk_low") > risk)
            held = judged.filter(pl.col("deployed_risk_high") <= risk).height
            # Schemes are worth naming where they are the exception.
            names = f", {', '.join(broken['scheme'])}" if 0 < 2 * broken.height <= judged.height else ""
            sentences.append(
                f"{where} the threshold set on val keeps the {in_words(risk)} limit for {held} of {judged.height} "
                f"schemes (whole interval of the risk below it) and breaks it for {broken.height}{names} (whole "
                f"interval above it); the rest is not settled. The risk reaches "
                f"{percent(judged['deployed_risk'].max())}."
            )
        if not few.is_empty():
            least, most = few["deployed_images"].min(), few["deployed_images"].max()
            answered = f"{least:,}" if least == most else f"{least:,} to {most:,}"
            sentences.append(
                f"{where} nothing can be said about the limit for {few.height} of {here.height} schemes, whose "
                f"threshold answers {items_about(answered)}. {too_few(fewest, risk)}."
            )
        none = here.height - judged.height - few.height
        if none:
            sentences.append(
                f"{where} {none} of {here.height} schemes answer nothing: no threshold keeps the limit on val, or none "
                "of the answers reaches it."
            )
    return sentences


def _answering_few(fewest: int) -> pl.Expr:
    return pl.col("deployed_images").is_between(1, fewest - 1)


def _certificates(rows: pl.DataFrame, risk: float, delta: float) -> list[str]:
    """Say how many random halves certify a threshold, or that none can."""
    if rows.is_empty():
        return []
    half, fewest = rows["images"][0] // 2, fewest_faultless(risk, delta)
    certifies = f"a threshold for a risk limit of {in_words(risk)} (in distribution, except with probability"
    if half < fewest:
        return [
            f"No half of the test images can certify {certifies} {in_words(delta)}): that takes {fewest:,} answers, "
            f"all right, one an image, and a half has {half:,}."
        ]
    shares = rows["certified_share"]
    most = rows.filter(pl.col("certified_share") > 0.5).height
    return [
        f"Of {rows['splits'][0]:,} random halves of the test images, one {item()} of each, "
        f"{span(shares.min(), shares.max())} certify {certifies} {in_words(delta)}), depending on the scheme; for "
        f"{most} of {rows.height} schemes more than half of them do."
    ]


def _estimators(comparisons: pl.DataFrame, model: str, id_dataset: str, resamples: int) -> list[str]:
    rows = comparisons.filter(
        (pl.col("first_model") == model)
        & (pl.col("first_scheme") == pl.col("second_scheme"))
        & (pl.col("dataset") == id_dataset)
        & (pl.col("metric") == "aurc")
        & pl.col("p_holm").is_not_null()
    )
    tests = comparisons["p_holm"].count()
    needed = fewest_resamples(tests, SIGNIFICANT)
    if not rows.is_empty() and resamples < needed:
        return [
            f"No estimator can be told from another: after Holm's correction for {_number(tests, 'difference')} it "
            f"takes {needed:,} resamples (comparison.resamples) to find any, and there are {resamples:,}."
        ]
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
