"""The jobs of a study, in the order of its stages: what Snakemake would run on nothing, named by rule and output."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from quantrust.confidence.catalogue import has_learned
from quantrust.quantization.scheme import UNQUANTIZED, resolve_scheme
from quantrust.report.contents import figures_of, tables_of
from quantrust.study.config import CANDIDATES, EMBEDDED

LANGUAGE_SHIFT = "scenes-language"


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


def study_jobs(config: Mapping[str, Any]) -> list[Job]:
    """Return all jobs that a study's `snakemake` runs, from data to page; downloads are none of them.

    Parameters
    ----------
    config : mapping
        Checked.
    """
    stages = (_data_jobs, _model_jobs, _evaluation_jobs, _report_jobs)
    # the adversary may be one of the study's models
    return list(dict.fromkeys(job for stage in stages for job in stage(config)))


def downloads_of(config: Mapping[str, Any]) -> dict[str, int | None]:
    """Return what `snakemake download` gets for a study, by name, with the bytes that the config states or None.

    Parameters
    ----------
    config : mapping
        Checked.
    """
    sections = [
        *(config["datasets"][dataset] for dataset in datasets_of(config)),
        config["calibration"],
        *(config["models"][model] for model in config["study"]["models"]),
    ]
    names = dict.fromkeys(name for section in sections for name in section.get("downloads", []))
    return {name: config["downloads"][name].get("bytes") for name in names}


def datasets_of(config: Mapping[str, Any]) -> list[str]:
    """Return the datasets of a study, the one in distribution first."""
    return [config["study"]["id_dataset"], *config["study"]["shifts"]]


def variants_of(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the variants of a study as (model, scheme)."""
    return list(product(config["study"]["models"], config["study"]["schemes"]))


def _data_jobs(config: Mapping[str, Any]) -> Iterator[Job]:
    for name in datasets_of(config):
        dataset = config["datasets"][name]
        if dataset["format"] == EMBEDDED:
            if name == LANGUAGE_SHIFT:
                adversary = dataset["adversary"]
                yield Job("write_dataset", f"data/embedded/{CANDIDATES}", dataset=CANDIDATES)
                yield _build_questions(CANDIDATES)
                yield _prepare(adversary)
                yield _quantize(adversary, UNQUANTIZED)
                yield from _dump(config, adversary, UNQUANTIZED, CANDIDATES)
                yield Job("select_adversarial", f"data/embedded/{name}", dataset=name)
            else:
                yield Job("write_dataset", f"data/embedded/{name}", dataset=name)
        elif dataset.keys() & {"split", "split_file"}:
            yield Job("divide_dataset", f"data/splits/{name}.parquet", dataset=name)
        yield _build_questions(name)


def _model_jobs(config: Mapping[str, Any]) -> Iterator[Job]:
    schemes = config["study"]["schemes"]
    for model in config["study"]["models"]:
        base = config["models"][model].get("stress", {}).get("model", model)
        yield _prepare(base)
        if model != base:
            yield Job("stress_model", f"data/models/{model}", model=model)
        if any(resolve_scheme(scheme, config["schemes"].get(scheme)).needs_calibration for scheme in schemes):
            yield Job("build_calibration", f"data/calibration/{model}.parquet", model=model)
        for scheme in schemes:
            yield _quantize(model, scheme)
            for dataset in datasets_of(config):
                yield from _dump(config, model, scheme, dataset)
            if has_learned(config["study"]["estimators"]):
                yield Job("train_selector", f"data/selectors/{model}/{scheme}", model, scheme)
            yield Job("score_in_distribution", f"data/in_distribution/scores/{model}/{scheme}.parquet", model, scheme)
            yield Job("write_scores", f"data/scores/{model}/{scheme}.parquet", model, scheme)
            for labels in config["selector"]["learning_curve"]:
                of_labels = f"{model}/{scheme}/{labels}"
                yield Job("train_on_labels", f"data/learning/selectors/{of_labels}", model, scheme)
                yield Job("score_on_labels", f"data/learning/scores/{of_labels}.parquet", model, scheme)


def _evaluation_jobs(config: Mapping[str, Any]) -> Iterator[Job]:
    for dataset in config["study"]["shifts"]:
        yield Job("build_mixtures", f"data/mixtures/{dataset}.parquet", dataset=dataset)
    for model, scheme in variants_of(config):
        for rule, *folders in (
            ("evaluate_in_distribution", "in_distribution/metrics", "in_distribution/curves"),
            ("break_down_in_distribution", "in_distribution/groups", "in_distribution/bins"),
            ("evaluate_variant", "metrics", "curves"),
            ("break_down_variant", "groups", "bins"),
            ("certify_variant", "certification"),
            ("decide_variant", "decisions"),
        ):
            first, *others = (f"data/{name}/{model}/{scheme}.parquet" for name in folders)
            yield Job(rule, first, model, scheme, also=tuple(others))
        if config["selector"]["learning_curve"]:
            yield Job("evaluate_learning", f"data/learning/curves/{model}/{scheme}.parquet", model, scheme)
    of_study = f"data/studies/{config['report']['folder']}"
    yield Job("compare_variants", f"{of_study}/comparisons.parquet")
    yield Job("judge_schemes", f"{of_study}/shipping.parquet")
    yield Job("pick_examples", f"{of_study}/examples.parquet")


def _report_jobs(config: Mapping[str, Any]) -> Iterator[Job]:
    folder = config["report"]["folder"]
    for entry in (*tables_of(config), *figures_of(config)):
        first, *others = entry.files(folder).values()
        yield Job(entry.rule, first, also=tuple(others))
    yield Job("build_page", f"{folder}/index.html")


def _build_questions(dataset: str) -> Job:
    skipped = f"data/skipped/{dataset}.parquet"
    return Job("build_questions", f"data/questions/{dataset}.parquet", dataset=dataset, also=(skipped,))


def _prepare(model: str) -> Job:
    return Job("prepare_model", f"data/models/{model}", model)


def _quantize(model: str, scheme: str) -> Job:
    return Job("quantize_model", f"data/checkpoints/{model}/{scheme}", model, scheme)


def _dump(config: Mapping[str, Any], model: str, scheme: str, dataset: str) -> Iterator[Job]:
    shards = config["features"]["shards"]
    output = f"data/features/{model}/{scheme}/{dataset}.parquet"
    if shards == 1:
        yield Job("dump_features", output, model, scheme, dataset)
        return
    for shard in range(1, shards + 1):
        part = f"{shard}-of-{shards}"
        yield Job("dump_shard", f"data/shards/{model}/{scheme}/{dataset}/{part}.parquet", model, scheme, dataset, part)
    yield Job("gather_features", output, model, scheme, dataset)
