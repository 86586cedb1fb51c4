"""The jobs of a study, in the order of its stages: what Snakemake would run on nothing, named by rule and output."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

from quantrust.confidence.catalogue import has_learned
from quantrust.quantization.factorial import grid_schemes
from quantrust.quantization.scheme import UNQUANTIZED
from quantrust.report.contents import datasets_of, figures_of, has_drift, tables_of
from quantrust.study import paths
from quantrust.study.contents import (
    CANDIDATES,
    LANGUAGE_SHIFT,
    Config,
    base_name,
    datasets_with_groups,
    downloads_of,
    external_schemes,
    grid_variants,
    is_divided,
    is_embedded,
    reads_calibration,
    variants_of,
)
from quantrust.study.inputs import matches, shards, swept_schemes

INTERMEDIATE = frozenset(
    {
        *("write_dataset", "select_adversarial", "divide_dataset", "prepare_model", "stress_model"),
        *("check_questions", "build_calibration", "dump_shard", "train_on_labels", "score_on_labels"),
    }
)
"""Rules whose artifacts are not made again for their own sake."""


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes
    ----------
    rule : str
    output : str
        Its artifact, or the first of them.
    model, scheme, dataset : str or None
        What it is about.
    shard : str or None
        The part of the questions that it answers, such as `1-of-4`.
    also : tuple of str
        Its other artifacts.
    """

    rule: str
    output: str
    model: str | None = None
    scheme: str | None = None
    dataset: str | None = None
    shard: str | None = None
    also: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """All of its artifacts."""
        return (self.output, *self.also)

    @property
    def name(self) -> str:
        """The rule and what it is about, as on the terminal."""
        return " ".join(filter(None, (self.rule, self.model, self.scheme, self.dataset, self.shard)))


def study_jobs(config: Config) -> list[Job]:
    """Return all jobs that a study's `snakemake` runs, from data to page; downloads are none of them.

    Parameters
    ----------
    config : mapping
        Checked and completed.
    """
    stages = (_data_jobs, _model_jobs, _evaluation_jobs, _report_jobs)
    # The adversary may be one of the study's models.
    return list(dict.fromkeys(job for stage in stages for job in stage(config)))


def study_artifacts(config: Config) -> list[str]:
    """Return what a study leaves behind, which `all` asks for: what is missing of it is made again.

    Parameters
    ----------
    config : mapping
        Checked and completed.
    """
    of_study = {(None, None), *variants_of(config), *grid_variants(config)}
    kept = [
        job
        for job in study_jobs(config)
        if job.rule not in INTERMEDIATE and job.dataset != CANDIDATES and (job.model, job.scheme) in of_study
    ]
    return [path for job in kept for path in job.outputs]


def study_downloads(config: Config) -> list[str]:
    """Return the records of the downloads that a study's datasets, calibration and models name."""
    return [paths.DOWNLOAD.format(download=name) for name in downloads_of(config)]


def _job(rule: str, *patterns: str, shard: str | None = None, **wildcards: str) -> Job:
    """Return a job that writes the artifacts of some patterns."""
    output, *also = (pattern.format(**wildcards) for pattern in patterns)
    about = {key: wildcards.get(key) for key in ("model", "scheme", "dataset")}
    return Job(rule, output, **about, shard=shard, also=tuple(also))


def _data_jobs(config: Config) -> Iterator[Job]:
    for name in datasets_of(config):
        if name == LANGUAGE_SHIFT:
            adversary = config["datasets"][name]["adversary"]
            yield _job("write_dataset", paths.EMBEDDED_DATASET, dataset=CANDIDATES)
            yield _job("build_questions", paths.QUESTIONS, paths.SKIPPED, dataset=CANDIDATES)
            yield _job("prepare_model", paths.MODEL, model=adversary)
            yield _job("quantize_model", paths.CHECKPOINT, model=adversary, scheme=UNQUANTIZED)
            yield from _dump(config, adversary, UNQUANTIZED, CANDIDATES)
            yield _job("select_adversarial", paths.EMBEDDED_DATASET, dataset=name)
        elif is_embedded(config, name):
            yield _job("write_dataset", paths.EMBEDDED_DATASET, dataset=name)
        elif is_divided(config, name):
            yield _job("divide_dataset", paths.DIVISION, dataset=name)
        yield _job("build_questions", paths.QUESTIONS, paths.SKIPPED, dataset=name)
        if name in datasets_with_groups(config):
            yield _job("build_question_groups", paths.QUESTION_GROUPS, dataset=name)


def _model_jobs(config: Config) -> Iterator[Job]:
    schemes = config["study"]["schemes"]
    for model in config["study"]["models"]:
        base = base_name(config, model)
        yield _job("prepare_model", paths.MODEL, model=base)
        if model != base:
            yield _job("stress_model", paths.MODEL, model=model)
        for dataset in datasets_of(config):
            if not is_embedded(config, dataset):
                yield _job("check_questions", paths.CHECKED, model=model, dataset=dataset)
        if any(reads_calibration(config, scheme) for scheme in (*schemes, *grid_schemes(config))):
            yield _job("build_calibration", paths.CALIBRATION, model=model)
        for scheme in schemes:
            variant = {"model": model, "scheme": scheme}
            rule = "import_checkpoint" if scheme in external_schemes(config) else "quantize_model"
            yield _job(rule, paths.CHECKPOINT, **variant)
            for dataset in datasets_of(config):
                yield from _dump(config, model, scheme, dataset)
            if has_learned(config["study"]["estimators"]):
                yield _job("train_selector", paths.SELECTOR, **variant)
            yield _job("score_in_distribution", paths.ID_SCORES, **variant)
            yield _job("write_scores", paths.SCORES, **variant)
            for labels in config["selector"]["learning_curve"]:
                yield _job("train_on_labels", paths.LABELS_SELECTOR, **variant, labels=str(labels))
                yield _job("score_on_labels", paths.LABELS_SCORES, **variant, labels=str(labels))
        for scheme in grid_schemes(config):
            # What a scheme of the study has anyway is the same job.
            variant = {"model": model, "scheme": scheme}
            if scheme in swept_schemes(config):
                id_dataset = config["study"]["id_dataset"]
                yield _job("answer_cell", paths.FEATURES, paths.CELL, **variant, dataset=id_dataset)
            else:
                yield _job("quantize_model", paths.CHECKPOINT, **variant)
                yield from _dump(config, model, scheme, config["study"]["id_dataset"])
            if has_learned(config["study"]["estimators"]):
                yield _job("train_selector", paths.SELECTOR, **variant)
            yield _job("score_in_distribution", paths.ID_SCORES, **variant)


def _evaluation_jobs(config: Config) -> Iterator[Job]:
    for dataset in config["study"]["shifts"]:
        yield _job("build_mixtures", paths.MIXTURES, dataset=dataset)
    for model, scheme in variants_of(config):
        variant = {"model": model, "scheme": scheme}
        yield _job("evaluate_in_distribution", paths.ID_METRICS, paths.ID_CURVES, **variant)
        yield _job("break_down_in_distribution", paths.ID_GROUPS, paths.ID_BINS, **variant)
        yield _job("evaluate_variant", paths.METRICS, paths.CURVES, **variant)
        yield _job("break_down_variant", paths.GROUPS, paths.BINS, **variant)
        yield _job("certify_variant", paths.CERTIFICATION, **variant)
        yield _job("set_operating_points", paths.OPERATING_POINTS, **variant)
        yield _job("decide_variant", paths.DECISIONS, **variant)
        if config["selector"]["learning_curve"]:
            yield _job("evaluate_learning", paths.LEARNING_CURVE, **variant)
    reports = config["report"]["folder"]
    for model, scheme in variants_of(config):
        yield _job("resample_variant", paths.RESAMPLED, reports=reports, model=model, scheme=scheme)
    yield _job("compare_variants", paths.COMPARISONS, reports=reports)
    if has_drift(config):
        yield _job("measure_drift", paths.DRIFT, reports=reports)
    yield _job("judge_schemes", paths.SHIPPING, reports=reports)
    if config["evaluation"]["groups"]:
        yield _job("judge_groups", paths.FAIRNESS, reports=reports)
    if config["factorial"]:
        yield _job("weigh_components", paths.GRID, paths.IMPORTANCE, paths.INTERACTIONS, paths.EFFECTS, reports=reports)
    yield _job("pick_examples", paths.EXAMPLES, reports=reports)


def _report_jobs(config: Config) -> Iterator[Job]:
    folder = config["report"]["folder"]
    for entry in (*tables_of(config), *figures_of(config)):
        first, *others = entry.files(folder).values()
        yield Job(entry.rule, first, also=tuple(others))
    yield _job("build_page", paths.PAGE, reports=folder)


def _dump(config: Config, model: str, scheme: str, dataset: str) -> Iterator[Job]:
    variant = {"model": model, "scheme": scheme, "dataset": dataset}
    if matches(config, dataset):
        yield _job("dump_matches", paths.FEATURES, **variant)
        return
    if config["features"]["shards"] == 1:
        yield _job("dump_features", paths.FEATURES, **variant)
        return
    for path in shards(config, model, scheme, dataset):
        yield _job("dump_shard", path, **variant, shard=PurePath(path).stem)
    yield _job("gather_features", paths.FEATURES, **variant)
