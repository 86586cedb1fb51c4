"""A resource plan as a table for the terminal."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from quantrust.report.contents import FIGURES, TABLES, datasets_of
from quantrust.study.contents import base_model
from quantrust.study.inputs import matches
from quantrust.study.settings import features
from quantrust.tasks.task import BARE

COLUMNS = ("questions", "weights file", "disk", "scratch", "device", "host")
TITLE = "weights files: exact, in bytes; everything else: estimated, in decimal units"
ANSWERS = ("dump_features", "dump_matches", "gather_features", "answer_cell")
"""Rules whose jobs leave the answers to all questions of a dataset."""
UNKNOWN, NOTHING = "?", "-"
"""The prompt that is the question alone."""
FITS = {"no": "too large", "halved": "halved", None: ""}
UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
OF_EVERY_VARIANT = {
    rule: rule
    for rule in (
        "train_on_labels",
        "score_on_labels",
        "evaluate_learning",
        "evaluate_in_distribution",
        "break_down_in_distribution",
        "evaluate_variant",
        "break_down_variant",
        "certify_variant",
        "set_operating_points",
        "decide_variant",
    )
}
OF_THE_REPORT = {
    # the table of the data reads questions and has a line of its own
    **{table.rule: "tables" for table in TABLES if table.name != "data"},
    **{figure.rule: "figures" for figure in FIGURES},
    "build_page": "build_page",
}
SUMMARISED = OF_EVERY_VARIANT | OF_THE_REPORT
"""Rules whose jobs are alike, or small: one line, of this name, stands for all of them."""

WRITING = ("quantize_model", "import_checkpoint")
"""Rules that leave checkpoints."""

CHECKPOINTS = (*WRITING, "answer_cell")
"""Rules that know how large a checkpoint is: that of a cell of a grid is measured and not kept."""

OF_A_MODEL = {
    **dict.fromkeys(("prepare_model", "stress_model", "check_questions", "build_calibration"), "prepare"),
    **dict.fromkeys(CHECKPOINTS, "quantize"),
    **dict.fromkeys((*ANSWERS, "dump_shard"), "answer"),
    **dict.fromkeys(("train_selector", "score_in_distribution", "write_scores"), "train and score"),
}
"""Rules whose jobs a summary has a line for, of this name, for each model."""

ASKING_NOTHING = ("prepare_model", "stress_model", "build_calibration", *WRITING, *OF_THE_REPORT)
"""Rules whose jobs have no questions."""


def size(count: int | None) -> str:
    """Return bytes in decimal units, rounded up to three digits; for example `16.6 GB`."""
    if count is None:
        return UNKNOWN
    for unit, name in UNITS:
        if count >= unit:
            digits = 2 if count < 10 * unit else 1 if count < 100 * unit else 0
            scale = unit / 10**digits
            return f"{-(-count // int(scale)) / 10**digits:.{digits}f} {name}"
    return f"{count} B"


def size_down(count: int) -> str:
    """Return bytes like `size`, rounded down: what is free."""
    unit = 10 ** max(0, len(str(count)) - 3)
    return size(count // unit * unit)


def plan_text(jobs: pl.DataFrame) -> str:
    """Return the table of a resource plan, with totals.

    Parameters
    ----------
    jobs : polars.DataFrame
        With the columns of `quantrust.planning.estimates.RESOURCE_PLAN_SCHEMA`, and `fits`: null, `no` or `halved`.

    Returns
    -------
    str
        Lines of about a hundred characters.
    """
    parts: list[tuple[str, list[tuple[str, ...]]]] = []
    for (model,), group in jobs.filter(~pl.col("rule").is_in(list(SUMMARISED))).group_by("model", maintain_order=True):
        parts.append((model or "data and evaluation", _rows(group)))
    for heading, rules in (("of every variant", OF_EVERY_VARIANT), ("report", OF_THE_REPORT)):
        alike = jobs.filter(pl.col("rule").is_in(list(rules))).with_columns(pl.col("rule").replace(rules).alias("line"))
        parts.append(
            (heading, [_summary(str(line), group) for (line,), group in alike.group_by("line", maintain_order=True)])
        )
    rows = [row for _, part in parts for row in part] + [_total(jobs)]
    widths = [max(len(row[column]) for row in [("job", *COLUMNS, ""), *rows]) for column in range(len(COLUMNS) + 2)]
    lines = [TITLE, "", _line(("job", *COLUMNS, ""), widths)]
    for heading, part in parts:
        lines += ["", heading, *(_line(row, widths) for row in part)]
    return "\n".join([*lines, "", _line(_total(jobs), widths)])


def summary_text(jobs: pl.DataFrame, downloads: Mapping[str, int | None]) -> str:
    """Return a resource plan in a few lines: what is quantized and answered, model by model; the rest in sum; totals.

    Parameters
    ----------
    jobs : polars.DataFrame
        As `plan_text` takes them.
    downloads : mapping of str to int or None
        Bytes by name.

    Returns
    -------
    str
        Lines of about a hundred characters.
    """
    of_variants = pl.col("rule").is_in(list(OF_EVERY_VARIANT))
    of_report = pl.col("rule").is_in(list(OF_THE_REPORT)) | pl.col("output").str.starts_with("data/studies/")
    of_model = pl.col("rule").is_in(list(OF_A_MODEL))
    parts: list[tuple[str, pl.DataFrame]] = [("data", jobs.filter(~(of_variants | of_report | of_model)))]
    for (model,), group in jobs.filter(of_model).group_by("model", maintain_order=True):
        lines = group.with_columns(pl.col("rule").replace(OF_A_MODEL).alias("line"))
        parts += [(f"{model}: {line}", rows) for (line,), rows in lines.group_by("line", maintain_order=True)]
    parts += [("evaluation", jobs.filter(of_variants)), ("report", jobs.filter(of_report))]
    rows = [_totals(f"{name}, {_number(len(group), 'job')}", group) for name, group in parts if not group.is_empty()]
    total = _total(jobs)
    known = pl.Series(list(downloads.values()), dtype=pl.Int64)
    if downloads:
        disk = (NOTHING, NOTHING, _known(known, sum, size), *(NOTHING,) * 3, "")
        rows.append((f"downloads, {len(downloads)}", *disk))
    widths = [max(map(len, column)) for column in zip(("job", *COLUMNS, ""), *rows, total, strict=True)]
    printed = [_line(row, widths) for row in (("jobs", *COLUMNS, ""), *rows)]
    return "\n".join([TITLE, "", *printed, "", _line(total, widths)])


def _totals(label: str, group: pl.DataFrame) -> tuple[str, ...]:
    """Return sums of questions that are answered, weights files and disk, and peaks of the rest, of some jobs."""
    answered = group.filter(pl.col("rule").is_in(ANSWERS))
    weights = group.filter(pl.col("rule").is_in(CHECKPOINTS))["weights_file_exact"]
    marks = [mark for mark in FITS if mark is not None and mark in group["fits"]]
    return (
        label,
        NOTHING if answered.is_empty() else _known(answered["questions"], sum, lambda count: f"{count:,}"),
        NOTHING if weights.is_empty() else _known(weights, sum, lambda count: f"{count:,} B"),
        _known(group["disk"], sum, size),
        *(_peak(group[name]) for name in ("scratch", "device")),
        _known(group["host"], max, size),
        FITS[marks[0]] if marks else "",
    )


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def disk_text(jobs: pl.DataFrame, downloads: Mapping[str, int | None], free: int) -> str:
    """Say what a study needs on disk and whether that is free.

    Parameters
    ----------
    jobs : polars.DataFrame
        With the columns of `quantrust.planning.estimates.RESOURCE_PLAN_SCHEMA`.
    downloads : mapping of str to int or None
        Bytes by name.
    free : int
        Bytes free where the study lies.

    Returns
    -------
    str
        One line; a second, which begins with `warning:`, where the disk has too little room for what is known.
    """
    got = sum(count for count in downloads.values() if count is not None)
    needed = jobs["disk"].sum() + (jobs["scratch"].max() or 0) + got
    unknown = jobs["disk"].has_nulls() or jobs["scratch"].has_nulls() or None in downloads.values()
    least = "at least " if unknown else ""
    what = "downloads, artifacts, and the largest scratch" if downloads else "artifacts, and the largest scratch"
    line = f"disk: needs {least}{size(needed)} ({what}), {size_down(free)} free here"
    if needed <= free:
        return line
    return (
        f"{line}\nwarning: the study does not fit on this disk: {least}{size(needed - free)} too little; make room, or "
        "move the study to another disk"
    )


def host_text(jobs: pl.DataFrame, memory: int, where: str) -> str | None:
    """Warn of jobs that take more host memory than there is; None where every job that is known fits.

    Parameters
    ----------
    jobs : polars.DataFrame
        With the columns of `quantrust.planning.estimates.RESOURCE_PLAN_SCHEMA`.
    memory : int
        Bytes.
    where : str
        Whose memory that is, for example `this machine has`.
    """
    larger = jobs.filter(pl.col("host") > memory).sort("host", descending=True, maintain_order=True)
    if larger.is_empty():
        return None
    job = larger.row(0, named=True)
    named = " ".join(filter(None, (job[key] for key in ("rule", "model", "scheme", "dataset", "shard"))))
    return (
        f"warning: {_number(len(larger), 'job')} may take more host memory than {where}, {size_down(memory)}\n"
        f"  most of all {named}, {size(job['host'])}\n"
        "  lower features.batch_size, images_per_batch, images_per_chunk or the pictures (models.NAME.processor)"
    )


def asking_text(config: Mapping[str, Any]) -> str:
    """Say how each model of a study is asked that was not made for this project; empty where there is none.

    Parameters
    ----------
    config : mapping
        Checked and completed.

    Returns
    -------
    str
        Two lines for every prompt and token limit of a model.
    """
    lines = []
    for model in config["study"]["models"]:
        # the embedded models are trained to answer the bare question in a word
        if "training" in base_model(config, model):
            continue
        asked: dict[tuple[str, int], list[str]] = {}
        for dataset in datasets_of(config):
            if matches(config, dataset):
                lines.append(f"{model} is given the images and texts of {dataset}, without a prompt")
                continue
            settings = features(config, model, dataset)
            asked.setdefault((settings["prompt"], settings["max_new_tokens"]), []).append(dataset)
        for (prompt, tokens), names in asked.items():
            bare = ", which is the question alone; models.NAME.prompt gives another" if prompt == BARE else ""
            lines.append(f"{model} is asked {json.dumps(prompt, ensure_ascii=False)}{bare}")
            lines.append(f"  about {', '.join(names)}; an answer ends after {tokens} tokens (features.max_new_tokens)")
    return "\n".join(lines)


def _rows(group: pl.DataFrame) -> list[tuple[str, ...]]:
    """Return a row for each job, and one for all shards of a dataset's questions."""
    keys = ["rule", "scheme", "dataset"]
    rows = []
    for values, alike in group.group_by(keys, maintain_order=True):
        rows.append(_summary(" ".join(filter(None, values)), alike))
    return rows


def _summary(line: str, group: pl.DataFrame) -> tuple[str, ...]:
    job = group.row(0, named=True) | {
        name: None if group[name].has_nulls() else value
        for name, value in (("disk", group["disk"].sum()), ("host", group["host"].max()))
    }
    if job["shard"] is not None and job["questions"] is not None:
        job |= {"questions": group["questions"].sum(), "questions_exact": False}
    return _cells(f"  {line}" if len(group) == 1 else f"  {line}, {len(group)} jobs", job)


def _cells(label: str, job: dict[str, Any]) -> tuple[str, ...]:
    if job["questions"] is None:
        questions = NOTHING if job["rule"] in ASKING_NOTHING else UNKNOWN
    else:
        questions = f"{'' if job['questions_exact'] else '~'}{job['questions']:,}"
    if job["weights_file_exact"] is None:
        weights = UNKNOWN if job["rule"] in CHECKPOINTS else NOTHING
    else:
        weights = f"{job['weights_file_exact']:,} B"
    scratch, device = (NOTHING if job[name] == 0 else size(job[name]) for name in ("scratch", "device"))
    return (label, questions, weights, size(job["disk"]), scratch, device, size(job["host"]), FITS[job["fits"]])


def _total(jobs: pl.DataFrame) -> tuple[str, ...]:
    answered = jobs.filter(pl.col("rule").is_in(ANSWERS))
    return (
        "sum of answers and disk; peak of the others",
        _known(answered["questions"], sum, lambda count: f"{count:,}"),
        _known(jobs.filter(pl.col("rule").is_in(CHECKPOINTS))["weights_file_exact"], sum, lambda count: f"{count:,} B"),
        _known(jobs["disk"], sum, size),
        *(_peak(jobs[name]) for name in ("scratch", "device")),
        _known(jobs["host"], max, size),
        "",
    )


def _known(values: pl.Series, combine: Callable[[list[int]], int], show: Callable[[int], str]) -> str:
    """Combine what is known; an unknown part makes it a lower bound."""
    known = values.drop_nulls().to_list()
    if not known:
        return UNKNOWN
    return f"{'>' if len(known) < len(values) else ''}{show(combine(known))}"


def _peak(values: pl.Series) -> str:
    """Return the largest value; what only some jobs take, none is known to take."""
    if values.max() == 0:
        return UNKNOWN if values.has_nulls() else NOTHING
    return _known(values, max, size)


def _line(row: Sequence[str], widths: Iterable[int]) -> str:
    first, *rest = (
        f"{cell:<{width}}" if place in (0, len(COLUMNS) + 1) else f"{cell:>{width}}"
        for place, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join([first, *rest]).rstrip()
