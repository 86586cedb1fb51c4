"""The resource plan of a study: for every job its questions, bytes on disk, and device and host memory.

Sizes of weights files are exact. Everything else is an estimate, rounded up where it is not known: of pictures outside
the embedded datasets, for example, the largest that a model's processor passes is taken. Estimates of jobs that compute
with models rest on assumptions that `quantrust.quantization.quantizing_memory` and `quantrust.inference.working_memory`
state; those of all other jobs are fitted to what the default study was seen to take.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from quantrust.confidence.catalogue import COMPARED, OF_ONE_NETWORK
from quantrust.embedded.models import IMAGE_SIZE
from quantrust.errors import QuantrustError
from quantrust.evaluation.components import ComponentSettings
from quantrust.evaluation.examples import KINDS
from quantrust.evaluation.importance import HALVINGS
from quantrust.evaluation.importance import RESAMPLES as HALF_RESAMPLES
from quantrust.evaluation.limits import risk_limits
from quantrust.inference.dump_job import KEPT_PICTURES as PICTURES_OF_A_DUMP
from quantrust.inference.features_file import ROWS_AT_ONCE
from quantrust.inference.matching_memory import match_footprint
from quantrust.inference.pictures_kept import LIMIT as KEPT_PICTURES
from quantrust.inference.settings import DumpSettings, MatchSettings
from quantrust.inference.sizes import features_bytes, matches_bytes
from quantrust.inference.working_memory import dump_footprint
from quantrust.models.footprint import LIBRARIES, Footprint
from quantrust.models.pictures import PictureCost
from quantrust.planning.models import PlannedModel
from quantrust.planning.questions import Questions, candidates, count_questions
from quantrust.quantization.calibration_memory import ANSWER_TOKENS
from quantrust.quantization.calibration_samples import BATCH_SIZE
from quantrust.quantization.layer_writer import KEPT_BYTES as KEPT_LAYERS
from quantrust.quantization.method import Samples
from quantrust.quantization.quantizing_memory import quantize_footprint
from quantrust.quantization.scheme import UNQUANTIZED, resolve_scheme
from quantrust.report.contents import FIGURES, TABLES, datasets_of, learning_estimators
from quantrust.study.contents import (
    CANDIDATES,
    LANGUAGE_SHIFT,
    brought_groupings,
    downloads_of,
    grid_variants,
    is_embedded,
    scheme_of,
    variants_of,
)
from quantrust.study.jobs import Job, study_jobs
from quantrust.study.settings import comparison, components, features, resampling
from quantrust.study.settings import prompt as prompt_of

LARGEST_PICTURE = 4096
"""Side of the square that stands for the largest pictures."""

PLAIN = 320_000_000
"""Host memory of a job without torch, before it has read anything."""

PICTURE_BYTES = 13_000
"""On disk, of a picture of the embedded datasets with its questions and answers."""

QUESTION_BYTES = 160
"""On disk, of a row of a questions table."""

QUESTION_OBJECTS = 12_000
"""In host memory, of a question with its ten answers while official files are read."""

CHECKED_BYTES = 2_000
"""On disk, of the table of the questions that a tokenizer has read."""

RECORD_BYTES = 1_000
"""On disk, of a layer's row in a checkpoint's record, with the choices of a search."""

FOLDER_BYTES = 16_000
"""On disk, of a model's folder beside weights, tokenizer and processor."""

SCORE_BYTES = 24
"""On disk, of a row of scores beside its numbers."""

SETTING_BYTES = 5_400
"""On disk, of the metrics and curve of one estimator of a variant on one mixture."""

GROUPS_BYTES = 7_000
"""On disk, of the breakdowns of one estimator of a variant on one dataset."""

RESULTS_BYTES, RESULT_BYTES = 12_000, 120
POINT_BYTES = 450
"""On disk, of a table of certificates, decisions, comparisons or verdicts without a row, and of a row."""

DECISION_BYTES = 340
"""On disk, of a decision as text."""

GROUPS_OF_A_GROUPING = 10
"""Groups that a grouping of questions is taken to have."""

FAIRNESS_BYTES = 380
"""On disk, of a row of the table of groups as text."""

DRIFT_BYTES = 150
"""On disk, of a row of the table of drift as text."""

LOGIT_READ, SCORE_READ, COMPARED_AT_ONCE = 8, 200, 200_000_000
"""In host memory, of a logit with its token, of an answer's scores, and of logits while they are compared."""

EPOCH_BYTES, NETWORK_BYTES = 128, 700
"""On disk, of an epoch in a Selector's record, and of the names and shapes of a network's tensors."""

EXAMPLES_READ = 2_000
"""In host memory, of a question that examples are drawn from or that the table of the data counts."""

EXAMPLE_BYTES = 700
"""On disk, of an example beside its picture: question, ten answers, numbers."""

EXAMPLE_PICTURE = {True: 2_000, False: 40_000}
"""On disk, of an example's picture: of an embedded dataset, and as large as examples are shown."""

DRAWING = 200_000_000
"""Host memory of a job that draws figures or writes the paper's tables, before it has read anything."""

TABULATING = 100_000_000
"""The same of a job that writes another table."""

PAGE = 400_000_000
"""The same of the job that writes the page: the engine that it takes the charts' library from is large."""

SETTING_READ = 25_000
"""In host memory, of the metrics and curve of one estimator of a variant on one mixture."""

FIGURE_BYTES = 200_000
"""On disk, of a figure as PDF and PNG without a variant."""

DRAWN_BYTES = {"risk_coverage": 14_000, "mixtures": 14_000}
"""On disk, of what a figure draws for a variant and dataset; those that are not named take `MARK_BYTES`."""

MARK_BYTES = 5_000

TABLE_BYTES = 600
"""On disk, of a table's head."""

PAPER_TABLE_BYTES = 6_000
"""On disk, of heads, captions and notes of a table that is written in three formats."""

NUMBER_BYTES = 150
"""On disk, of one number of such a table in its three formats."""

PAGE_FIGURE_BYTES = 120_000
"""On disk, of a figure on the page."""

PAGE_BYTES = 1_050_000
"""On disk, of the page without a variant, most of it the library that draws its charts."""

RESOURCE_PLAN_SCHEMA = pl.Schema(
    {
        "rule": pl.String,
        "model": pl.String,
        "scheme": pl.String,
        "dataset": pl.String,
        "shard": pl.String,
        "output": pl.String,
        "questions": pl.Int64,
        "questions_exact": pl.Boolean,
        "weights_file_exact": pl.Int64,
        "disk": pl.Int64,
        "scratch": pl.Int64,
        "device": pl.Int64,
        "device_least": pl.Int64,
        "host": pl.Int64,
    }
)
"""Columns of a resource plan, a row for each job.

`weights_file_exact` is the size of the checkpoint's `model.safetensors`, to the byte. `disk` (the output as a whole),
`scratch` (files that are deleted when the job ends), `device` and `host` are estimates in bytes; `device` is 0 where
nothing runs on a GPU, and `device_least` what it can come down to with batches of one. Null is unknown; `questions` is
also null where a job reads none.
"""


@dataclass(frozen=True)
class ResourcePlan:
    """The resource plan of a study.

    Attributes
    ----------
    jobs : polars.DataFrame
        With the columns of `RESOURCE_PLAN_SCHEMA`, in the order of the stages.
    downloads : dict of str to int or None
        Bytes on disk of what `snakemake download` gets, by name; None where the config does not say.
    unknown : list of str
        What could not be planned, and what to do about it.
    """

    jobs: pl.DataFrame
    downloads: dict[str, int | None]
    unknown: list[str]


@dataclass(frozen=True)
class Estimate:
    """What a job takes; None is unknown."""

    questions: int | None = None
    questions_exact: bool = True
    weights_file_exact: int | None = None
    disk: int | None = None
    scratch: int | None = 0
    device: int | None = 0
    device_least: int | None = 0
    host: int | None = None


def plan_study(config: Mapping[str, Any]) -> ResourcePlan:
    """Estimate every job of a study.

    Parameters
    ----------
    config : mapping
        Checked.

    Returns
    -------
    ResourcePlan

    Raises
    ------
    QuantrustError
        If official files that are there cannot be counted, or a scheme selects nothing of a model.
    """
    planner = _Planner(config)
    rows = [{**vars(job), **vars(planner.estimate(job))} for job in study_jobs(config)]
    return ResourcePlan(pl.DataFrame(rows, schema=RESOURCE_PLAN_SCHEMA), downloads_of(config), list(planner.unknown))


def with_fit(jobs: pl.DataFrame, device_memory: int | None) -> pl.DataFrame:
    """Add the column `fits`: `no` and `halved` for jobs that a GPU has too little memory for, else null.

    Parameters
    ----------
    jobs : polars.DataFrame
        With the columns of `RESOURCE_PLAN_SCHEMA`.
    device_memory : int or None
        Bytes; None marks no job.

    Returns
    -------
    polars.DataFrame
        `halved` are jobs that fit with batches of one: a batch that does not fit is halved while they run.
    """
    if device_memory is None:
        return jobs.with_columns(fits=pl.lit(None, pl.String))
    return jobs.with_columns(
        fits=pl.when(pl.col("device_least") > device_memory)
        .then(pl.lit("no"))
        .when(pl.col("device") > device_memory)
        .then(pl.lit("halved"))
    )


def check_fit(jobs: pl.DataFrame, device_memory: int | None) -> None:
    """Raise if `with_fit` marked a job.

    Raises
    ------
    QuantrustError
        With how many there are, the largest of them, and what to do.
    """
    faults = []
    for mark, words, advice in (
        (
            "no",
            "even with batches of one",
            "take a larger GPU, or smaller pictures (models.NAME.processor)",
        ),
        ("halved", "as configured", "lower features.batch_size, images_per_batch or images_per_chunk"),
    ):
        found = jobs.filter(fits=mark)
        if not found.is_empty():
            needed = "device_least" if mark == "no" else "device"
            job = found.sort(needed, descending=True, maintain_order=True).row(0, named=True)
            named = " ".join(filter(None, (job[key] for key in ("rule", "model", "scheme", "dataset", "shard"))))
            faults.append(
                f"{len(found)} {'job takes' if len(found) == 1 else 'jobs take'} more than {device_memory / 1e9:g} GB "
                f"of device memory {words}, most of all {named} with {job[needed] / 1e9:.3g} GB; {advice}"
            )
    if faults:
        raise QuantrustError("\n".join(faults))


class _Planner:
    """Estimates of the jobs of one study; what is unknown is said once."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.unknown: dict[str, None] = {}
        self._models: dict[str, PlannedModel | None] = {}
        self._id_dataset = config["study"]["id_dataset"]
        self.questions = {
            name: count_questions(config["datasets"][name], name == self._id_dataset) for name in datasets_of(config)
        }
        for name, questions in self.questions.items():
            if questions is None:
                self._say(
                    f"datasets.{name}: its files are not there, so that its questions cannot be counted; get them, or "
                    f"give datasets.{name}.size, the number of its questions"
                )

    def estimate(self, job: Job) -> Estimate:
        """Return what a job takes."""
        if (estimated := ESTIMATES.get(job.rule)) is not None:
            return estimated(self, job)
        if job.rule in {figure.rule for figure in FIGURES}:
            return self._figure(job.rule)
        table = {table.rule: table for table in TABLES}[job.rule]
        return self._paper_table(job) if table.for_papers else self._other_table(job)

    def _say(self, fault: str) -> None:
        self.unknown[fault] = None

    def _model(self, name: str) -> PlannedModel | None:
        if name not in self._models:
            try:
                self._models[name] = PlannedModel(name, self.config)
            except QuantrustError as error:
                self._say(str(error))
                self._models[name] = None
        return self._models[name]

    def _asked(self, dataset: str) -> Questions | None:
        if dataset == CANDIDATES:
            total = candidates(self.config["datasets"][LANGUAGE_SHIFT])
            return Questions(total, {"test": total}, exact=True, source="config")
        return self.questions[dataset]

    def _all(self, *splits: str, datasets: Iterable[str] | None = None) -> int | None:
        """Return the questions of these splits of all datasets, or of some."""
        asked = [self.questions[name] for name in (self.questions if datasets is None else datasets)]
        counts = [None if found is None else found.of(*splits) for found in asked]
        return None if None in counts else sum(counts)

    def _totals(self) -> int | None:
        counts = [None if found is None else found.total for found in self.questions.values()]
        return None if None in counts else sum(counts)

    def _picture(self, model: PlannedModel, dataset: str) -> PictureCost | None:
        embedded = is_embedded(self.config, dataset)
        try:
            prompt = prompt_of(self.config, model.name, dataset)
            return model.picture(IMAGE_SIZE if embedded else LARGEST_PICTURE, prompt)
        except QuantrustError as error:
            self._say(f"models.{model.name}: memory cannot be planned: {error}")
            return None

    def _on_device(self, footprint: Footprint | None) -> dict[str, int | None]:
        if footprint is None:
            device = 0 if self.config["compute"]["device"] == "cpu" else None
            return {"device": device, "device_least": device, "host": None, "scratch": None}
        return {
            "device": footprint.device,
            "device_least": footprint.least,
            "host": footprint.host,
            "scratch": footprint.scratch,
        }

    def _write_dataset(self, job: Job) -> Estimate:
        dataset = self.config["datasets"][LANGUAGE_SHIFT if job.dataset == CANDIDATES else job.dataset]
        images = dataset["images"]
        pictures = sum(images.values()) + dataset["captions"] if isinstance(images, dict) else images
        return Estimate(self._asked(job.dataset).total, disk=pictures * PICTURE_BYTES, host=PLAIN)

    def _select_adversarial(self, job: Job) -> Estimate:
        dataset = self.config["datasets"][job.dataset]
        pictures = min(dataset["images"], dataset["questions"])
        return Estimate(dataset["questions"], disk=pictures * PICTURE_BYTES, host=PLAIN)

    def _reading(self, job: Job) -> Estimate:
        asked = self._asked(job.dataset)
        if asked is None:
            return Estimate()
        return Estimate(asked.total, disk=asked.total * QUESTION_BYTES, host=PLAIN + asked.total * QUESTION_OBJECTS)

    def _prepare_model(self, job: Job) -> Estimate:
        model = self._model(job.model)
        if model is None:
            return Estimate(device=0)
        _, sizes = model.checkpoint(resolve_scheme(UNQUANTIZED))
        return Estimate(disk=sizes["weights_file"] + model.companions + FOLDER_BYTES, host=LIBRARIES)

    def _check_questions(self, job: Job) -> Estimate:
        asked = self._asked(job.dataset)
        if asked is None:
            return Estimate()
        return Estimate(asked.total, disk=CHECKED_BYTES, host=LIBRARIES + asked.total * QUESTION_OBJECTS)

    def _build_calibration(self, job: Job) -> Estimate:
        model = self._model(job.model)
        samples = None if model is None else self._samples(model)
        if samples is None:
            return Estimate()
        # an id and a role for each token
        return Estimate(
            disk=samples.count * samples.tokens * 5,
            host=LIBRARIES + BATCH_SIZE * 2 * samples.pixel_bytes,
        )

    def _quantize_model(self, job: Job) -> Estimate:
        model = self._model(job.model)
        if model is None:
            return Estimate(**self._on_device(None))
        scheme = scheme_of(self.config, job.scheme)
        plan, sizes = model.checkpoint(scheme)
        samples = self._samples(model) if scheme.needs_calibration else None
        footprint = None
        if samples is not None or not scheme.needs_calibration:
            device = self.config["compute"]["device"]
            kept = self.config["calibration"]["activations_gb"]
            kept = None if kept is None else int(kept * 1e9)
            footprint = quantize_footprint(*model.family_and_model, plan, sizes, scheme, samples, device, kept)
        return Estimate(
            weights_file_exact=sizes["weights_file"],
            disk=sizes["weights_file"] + model.companions + len(plan) * RECORD_BYTES,
            **self._on_device(footprint),
        )

    def _import_checkpoint(self, job: Job) -> Estimate:
        model = self._model(job.model)
        if model is None:
            return Estimate(device=0)
        plan, sizes = model.checkpoint(scheme_of(self.config, job.scheme))
        # of the largest tensor: as it is stored, its codes a byte each, and what they are made from
        largest = int((plan["rows"] * plan["columns"]).max())
        return Estimate(
            weights_file_exact=sizes["weights_file"],
            disk=sizes["weights_file"] + model.companions + len(plan) * RECORD_BYTES,
            device=0,
            host=LIBRARIES + 8 * largest,
        )

    def _samples(self, model: PlannedModel) -> Samples | None:
        picture = self._picture(model, self.config["study"]["id_dataset"])
        if picture is None:
            return None
        return Samples(
            self.config["calibration"]["samples"],
            picture.prompt_tokens + ANSWER_TOKENS,
            picture.patches,
            picture.pixel_bytes,
        )

    def _dump_features(self, job: Job) -> Estimate:
        found, asked, model = self._answers(job), self._asked(job.dataset), self._model(job.model)
        picture = None if model is None else self._picture(model, job.dataset)
        if picture is None or asked is None or found.host is None:
            return found
        # pictures that are kept for other variants
        return replace(found, host=found.host + min(PICTURES_OF_A_DUMP, picture.pixel_bytes * asked.total))

    def _answers(self, job: Job) -> Estimate:
        asked, model = self._asked(job.dataset), self._model(job.model)
        if model is None:
            return replace(_of(asked), **self._on_device(None))
        settings = DumpSettings.from_config(features(self.config, model.name, job.dataset))
        picture = self._picture(model, job.dataset)
        footprint = None
        if picture is not None:
            plan, sizes = model.checkpoint(scheme_of(self.config, job.scheme))
            workers = self.config["features"]["workers"]
            footprint = dump_footprint(*model.family_and_model, plan, sizes, picture, settings, workers)
        disk = None if asked is None else self._features_bytes(asked.total, model)
        return replace(_of(asked), disk=disk, **self._on_device(footprint))

    def _dump_matches(self, job: Job) -> Estimate:
        asked, model = self._asked(job.dataset), self._model(job.model)
        if asked is None or model is None:
            return replace(_of(asked), **self._on_device(None))
        picture, footprint = self._picture(model, job.dataset), None
        if picture is not None:
            plan, sizes = model.checkpoint(scheme_of(self.config, job.scheme))
            settings = MatchSettings(**features(self.config, model.name, job.dataset))
            # every image is a query and has a caption at least, which is another
            images = asked.total // 2
            workers = self.config["features"]["workers"]
            footprint = match_footprint(*model.family_and_model, plan, sizes, picture, images, settings, workers)
        return replace(_of(asked), disk=matches_bytes(asked.total), **self._on_device(footprint))

    def _answer_cell(self, job: Job) -> Estimate:
        quantized, dumped, model = self._quantize_model(job), self._answers(job), self._model(job.model)
        if model is None or quantized.scratch is None or quantized.host is None or dumped.host is None:
            return replace(dumped, weights_file_exact=quantized.weights_file_exact, host=None, scratch=None)
        plan, sizes = model.checkpoint(scheme_of(self.config, job.scheme))
        chosen = plan.filter(plan["bits"].is_not_null())
        picture, asked = self._picture(model, job.dataset), self._asked(job.dataset)
        pictures = picture.pixel_bytes * asked.total if picture is not None and asked is not None else KEPT_PICTURES
        on_cpu = self.config["compute"]["device"] == "cpu"
        # weights dequantized once; pictures before and after the vision tower, and layers, kept for other cells
        kept = 4 * int((chosen["rows"] * chosen["columns"]).sum()) * on_cpu
        kept += 2 * min(KEPT_PICTURES, pictures) + min(KEPT_LAYERS, 3 * sizes["weights_file"])
        return replace(
            dumped,
            weights_file_exact=sizes["weights_file"],
            disk=None if dumped.disk is None else dumped.disk + len(plan) * RECORD_BYTES,
            scratch=sizes["weights_file"] + model.companions + quantized.scratch,
            device=_largest(quantized.device, dumped.device),
            device_least=_largest(quantized.device_least, dumped.device_least),
            host=max(quantized.host, dumped.host) + kept,
        )

    def _dump_shard(self, job: Job) -> Estimate:
        whole, asked, shards = self._answers(job), self._asked(job.dataset), self.config["features"]["shards"]
        if asked is None:
            return whole
        # shards take whole chunks of pictures
        questions, model = -(-asked.total // shards), self._model(job.model)
        disk = None if model is None else self._features_bytes(questions, model)
        return replace(whole, questions=questions, questions_exact=False, disk=disk)

    def _gather_features(self, job: Job) -> Estimate:
        asked, model = self._asked(job.dataset), self._model(job.model)
        disk = None if asked is None or model is None else self._features_bytes(asked.total, model)
        return replace(_of(asked), disk=disk, host=LIBRARIES)

    def _features_bytes(self, questions: int, model: PlannedModel) -> int:
        top_k = self.config["features"]["top_k"]
        return features_bytes(questions, model.hidden, model.vocabulary if top_k == "all" else top_k)

    def _train_selector(self, job: Job) -> Estimate:
        asked, model = self.questions[self.config["study"]["id_dataset"]], self._model(job.model)
        if asked is None or model is None or asked.by_split is None:
            return _of(asked)
        selector, states = self.config["selector"], 3 * model.hidden
        width = selector["hidden"]
        parameters = (states + 1) * (width + 2) + width * (width + 3) + 1
        curve = (selector["epochs"] + 1) * EPOCH_BYTES
        dev, val = asked.of("dev"), asked.of("val")
        # float32 of both splits, and a slice as it is read (float16 and, of a split, float16 and twice float32)
        values = 4 * (dev + val) + 12 * min(ROWS_AT_ONCE, asked.total)
        # those of selector-residual are as many more
        networks = 2 * selector["members"]
        return Estimate(
            asked.of("dev", "val"),
            asked.exact,
            disk=networks * (4 * parameters + curve + NETWORK_BYTES),
            # all networks in float64, and of the one in training gradients, two moments and the best weights
            host=LIBRARIES + states * values + 8 * parameters * (networks + 4),
        )

    def _train_on_labels(self, job: Job) -> Estimate:
        whole, labels = self._train_selector(job), int(Path(job.output).name)
        asked = self.questions[self.config["study"]["id_dataset"]]
        if whole.questions is None or asked is None or asked.by_split is None:
            return whole
        # by image, so that there may be a few more; memory is taken as if all of dev were read
        return replace(whole, questions=min(labels, asked.of("dev")) + asked.of("val"), questions_exact=False)

    def _write_scores(self, job: Job) -> Estimate:
        return self._scores(job, list(self.questions.values()), self._scored)

    def _score_in_distribution(self, job: Job) -> Estimate:
        return self._scores(job, [self.questions[self._id_dataset]], self._scored)

    def _score_on_labels(self, job: Job) -> Estimate:
        return self._scores(job, list(self.questions.values()), {"maxprob", *learning_estimators(self.config)})

    @property
    def _scored(self) -> set[str]:
        """Estimators that the scores of a variant hold."""
        return {name.split("+")[0] for name in self.config["study"]["estimators"]}

    def _scores(self, job: Job, asked: list[Questions | None], estimators: set[str]) -> Estimate:
        model = self._model(job.model)
        if None in asked:
            return Estimate()
        total = sum(found.total for found in asked)
        further = len(estimators & set(OF_ONE_NETWORK)) * (self.config["selector"]["members"] - 1)
        disk = total * (8 * (1 + len(estimators) + further) + SCORE_BYTES)
        if model is None:
            return Estimate(total, disk=disk)
        # a slice at a time, float16 as it is read and float32 three times; and the table that is written
        largest = min(ROWS_AT_ONCE, max(found.total for found in asked))
        return Estimate(total, disk=disk, host=LIBRARIES + 14 * 3 * model.hidden * largest + 8 * disk)

    def _build_mixtures(self, job: Job) -> Estimate:
        both = self._tested(self.config["study"]["id_dataset"], job.dataset)
        if both is None:
            return Estimate()
        size = min(both) * len(self.config["evaluation"]["id_shares"])
        return Estimate(sum(both), disk=16 * size, host=PLAIN + 1000 * size)

    def _tested(self, *datasets: str) -> list[int] | None:
        counts = [None if self.questions[name] is None else self.questions[name].of("test") for name in datasets]
        return None if None in counts else counts

    def _variant(self, resamples: int, disk: int, datasets: Iterable[str] | None = None) -> Estimate:
        names = list(self.questions if datasets is None else datasets)
        tested = self._all("test", datasets=names)
        if tested is None:
            return Estimate()
        exact = all(self.questions[name].exact for name in names)
        return Estimate(
            self._all("val", "test", datasets=names),
            exact,
            disk=disk,
            # how often each picture was drawn, as if every question had one of its own
            host=PLAIN + 4 * resamples * tested,
        )

    def _evaluate_in_distribution(self, job: Job) -> Estimate:
        disk = SETTING_BYTES * len(self.config["study"]["estimators"])
        return self._variant(self.config["evaluation"]["resamples"], disk, [self._id_dataset])

    def _break_down_in_distribution(self, job: Job) -> Estimate:
        disk = GROUPS_BYTES * len(self.config["study"]["estimators"])
        return self._variant(self.config["evaluation"]["resamples"], disk, [self._id_dataset])

    def _evaluate_variant(self, job: Job) -> Estimate:
        disk = SETTING_BYTES * len(self.config["study"]["estimators"]) * self._mixed
        return self._variant(self.config["evaluation"]["resamples"], disk)

    def _break_down_variant(self, job: Job) -> Estimate:
        disk = GROUPS_BYTES * len(self.config["study"]["estimators"]) * len(self.questions)
        return self._variant(self.config["evaluation"]["resamples"], disk)

    def _certify_variant(self, job: Job) -> Estimate:
        return self._variant(0, RESULTS_BYTES + self._certified * RESULT_BYTES)

    def _set_operating_points(self, job: Job) -> Estimate:
        section = self.config["bundles"]
        # of val and certified, each measured on every test set, and what was sought
        points = 2 * len(section["estimators"]) * len(section["risks"])
        return self._variant(self.config["evaluation"]["resamples"], points * (1 + len(self.questions)) * POINT_BYTES)

    def _decide_variant(self, job: Job) -> Estimate:
        return self._variant(self.config["evaluation"]["resamples"], RESULTS_BYTES + self._decided * RESULT_BYTES)

    def _evaluate_learning(self, job: Job) -> Estimate:
        # AURC, ECE and one coverage of each estimator, on every test set
        rows = 3 * len(self.config["selector"]["learning_curve"]) * len(self.questions)
        results = rows * len(learning_estimators(self.config))
        return self._variant(self.config["evaluation"]["resamples"], RESULTS_BYTES + results * RESULT_BYTES)

    def _resample_variant(self, job: Job) -> Estimate:
        found = self._variant(self.config["comparison"]["resamples"], RESULTS_BYTES + self._resampled)
        return found if found.host is None else replace(found, host=found.host + 2 * self._resampled)

    def _compare_variants(self, job: Job) -> Estimate:
        # the resampled metrics of all variants, and those of one more as they are read
        read = self._resampled * (self._variants + 1)
        return Estimate(0, disk=RESULTS_BYTES + self._compared * RESULT_BYTES, host=PLAIN + read)

    def _measure_drift(self, job: Job) -> Estimate:
        found = self._variant(self.config["evaluation"]["resamples"], RESULTS_BYTES + self._drifted * RESULT_BYTES)
        models = [self._model(name) for name in self.config["study"]["models"]]
        if found.host is None or None in models:
            return replace(found, host=None)
        tested = self._tested(*self.questions) or [0]
        top_k = self.config["features"]["top_k"]
        kept = max(model.vocabulary for model in models if model is not None) if top_k == "all" else top_k
        # the logits of both sides on one dataset, as they are read and once more
        logits = 2 * 2 * LOGIT_READ * kept * max(tested)
        answers = len(self.config["study"]["schemes"]) * sum(tested) * SCORE_READ
        return replace(found, host=found.host + COMPARED_AT_ONCE + logits + answers)

    def _judge_schemes(self, job: Job) -> Estimate:
        # those of a scheme and of the one that it is held against, and of one more as they are read
        return Estimate(0, disk=RESULTS_BYTES + self._judged * RESULT_BYTES, host=PLAIN + 3 * self._resampled)

    def _weigh_components(self, job: Job) -> Estimate:
        grid = grid_variants(self.config)
        estimators = len(self.config["report"]["shipping"]["estimators"])
        metrics = len(ComponentSettings(**components(self.config)).metrics)
        resamples = self.config["evaluation"]["resamples"] + 2 * HALVINGS * (1 + HALF_RESAMPLES)
        found = self._variant(resamples, RESULTS_BYTES + len(grid) * estimators * 2 * metrics * RESULT_BYTES)
        if found.host is None:
            return found
        # of every scheme and estimator each metric on each resample
        return replace(found, host=found.host + 8 * len(grid) * estimators * metrics * resamples)

    def _build_question_groups(self, job: Job) -> Estimate:
        tested, groupings = self._tested(job.dataset), len(brought_groupings(self.config))
        if tested is None:
            return Estimate()
        (count,) = tested
        return Estimate(count, disk=RESULTS_BYTES + 16 * count * (1 + groupings), host=PLAIN + 1000 * count)

    def _judge_groups(self, job: Job) -> Estimate:
        resamples = self.config["comparison"]["resamples"]
        found = self._variant(resamples, RESULTS_BYTES + self._grouped * RESULT_BYTES)
        if found.host is None:
            return found
        # of every group coverage and risk on each resample: of the reference under each estimator, and of one more
        kept = 2 * (2 + len(self.config["report"]["shipping"]["estimators"])) * len(self.questions)
        groups = GROUPS_OF_A_GROUPING * len(self.config["evaluation"]["groups"])
        return replace(found, host=found.host + 8 * resamples * groups * kept)

    @property
    def _grouped(self) -> int:
        """Rows of groups: of a variant under each estimator, by coverage and risk."""
        groups = GROUPS_OF_A_GROUPING * len(self.config["evaluation"]["groups"])
        return self._judged * groups

    @property
    def _mixed(self) -> int:
        """Mixtures, and the ID dataset alone."""
        return 1 + len(self.config["study"]["shifts"]) * len(self.config["evaluation"]["id_shares"])

    @property
    def _variants(self) -> int:
        return len(variants_of(self.config))

    @property
    def _certified(self) -> int:
        """Certificates of a variant."""
        certification = self.config["certification"]
        return len(certification["estimators"]) * len(certification["risks"]) * self._mixed

    @property
    def _decided(self) -> int:
        """Decisions of a variant."""
        limits = len(risk_limits(**self.config["report"]["limits"]))
        return len(self.config["certification"]["estimators"]) * len(self.questions) * limits

    @property
    def _compared(self) -> int:
        """Comparisons: of a variant each estimator with bf16 and with maxprob, by every metric that is compared."""
        pairs = 2 * self._variants * len(self.config["comparison"]["estimators"])
        return pairs * len(self.questions) * len(comparison(self.config)["metrics"])

    @property
    def _resampled(self) -> int:
        """Bytes of the resampled metrics of a variant."""
        asked = resampling(self.config)
        return 8 * asked["resamples"] * len(asked["metrics"]) * len(asked["estimators"]) * len(self.questions)

    @property
    def _drifted(self) -> int:
        """Measures of drift: of a variant four of its answers, and two of each estimator's confidence."""
        return self._variants * len(self.questions) * (4 + 2 * len(self.config["comparison"]["estimators"]))

    @property
    def _judged(self) -> int:
        """Verdicts: of a variant under each estimator, by accuracy and the coverage at each limit."""
        shipping = self.config["report"]["shipping"]
        metrics = 1 + len(shipping["risks"])
        return metrics * self._variants * len(shipping["estimators"]) * len(self.questions)

    def _pick_examples(self, job: Job) -> Estimate:
        tested, total = self._all("test"), self._totals()
        disk, pictures = self._examples()
        largest = 0
        if not all(map(self._embedded, datasets_of(self.config))):
            # as it is read, and once more
            largest = 2 * 3 * LARGEST_PICTURE**2
        host = None if total is None else PLAIN + total * EXAMPLES_READ + largest + pictures
        exact = tested is None or all(found.exact for found in self.questions.values())
        return Estimate(tested, exact, disk=disk + pictures, host=host)

    def _examples(self) -> tuple[int, int]:
        """Return the bytes of all examples and, as if no two shared any, of their pictures."""
        each = len(KINDS) * self.config["report"]["examples"] * self._variants
        names = datasets_of(self.config)
        return each * len(names) * EXAMPLE_BYTES, each * sum(EXAMPLE_PICTURE[self._embedded(name)] for name in names)

    def _embedded(self, dataset: str) -> bool:
        return is_embedded(self.config, dataset)

    @property
    def _settings(self) -> int:
        """Estimators of all variants on all mixtures."""
        return self._variants * len(self.config["study"]["estimators"]) * self._mixed

    def _figure(self, name: str) -> Estimate:
        drawn = self._variants * len(self.questions)
        return Estimate(
            disk=FIGURE_BYTES + drawn * DRAWN_BYTES.get(name, MARK_BYTES),
            host=DRAWING + self._settings * SETTING_READ,
        )

    def _paper_table(self, job: Job) -> Estimate:
        evaluation = self.config["evaluation"]
        # accuracy, AURC, ECE, coverage at each risk limit, Phi of each cost
        columns = 3 + len(evaluation["risks"]) + len(evaluation["costs"])
        (table,) = (table for table in TABLES if table.rule == job.rule)
        estimators = len(table.settings(self.config).get("estimators", COMPARED))
        numbers = self._variants * estimators * columns
        return Estimate(disk=PAPER_TABLE_BYTES + numbers * NUMBER_BYTES, host=DRAWING + self._settings * SETTING_READ)

    def _table(self, rows: int, row_bytes: int) -> Estimate:
        disk = TABLE_BYTES + rows * row_bytes
        # most read metrics; what is written as it was read is in memory a few times as large
        return Estimate(disk=disk, host=TABULATING + self._settings * SETTING_READ + 4 * disk)

    def _other_table(self, job: Job) -> Estimate:
        """Estimate a table that has no estimate of its own: a row for every variant, dataset and estimator."""
        return self._table(self._variants * len(self.questions) * len(self.config["study"]["estimators"]), 220)

    def _tabulate_data(self, job: Job) -> Estimate:
        total = self._totals()
        host = None if total is None else TABULATING + total * EXAMPLES_READ
        return Estimate(total, disk=TABLE_BYTES + 3 * len(self.questions) * 100, host=host)

    def _tabulate_accuracy(self, job: Job) -> Estimate:
        return self._table(self._variants * len(self.questions), 110)

    def _tabulate_reliability(self, job: Job) -> Estimate:
        rows = self._variants * len(self.questions) * len(self.config["study"]["estimators"])
        # three numbers for ECE, AURC and each risk limit
        return self._table(rows, 80 + 60 * (2 + len(self.config["evaluation"]["risks"])))

    def _tabulate_members(self, job: Job) -> Estimate:
        learned = {name for name in self.config["study"]["estimators"] if name.split("+")[0] in OF_ONE_NETWORK}
        # AURC, ECE and the coverages
        rows = self._variants * len(self.questions) * len(learned) * (2 + len(self.config["report"]["risks"]))
        return self._table(rows, 220)

    def _tabulate_sizes(self, job: Job) -> Estimate:
        return self._table(self._variants, 180)

    def _tabulate_certification(self, job: Job) -> Estimate:
        return self._table(self._variants * self._certified, 230)

    def _tabulate_comparisons(self, job: Job) -> Estimate:
        return self._table(self._compared, 200)

    def _tabulate_decisions(self, job: Job) -> Estimate:
        return self._table(self._variants * self._decided, DECISION_BYTES)

    def _tabulate_shipping(self, job: Job) -> Estimate:
        return self._table(self._judged, 180)

    def _tabulate_drift(self, job: Job) -> Estimate:
        return self._table(self._drifted, DRIFT_BYTES)

    def _tabulate_fairness(self, job: Job) -> Estimate:
        return self._table(self._grouped, FAIRNESS_BYTES)

    def _build_page(self, job: Job) -> Estimate:
        examples, pictures = self._examples()
        shown = self._variants * len(self.config["certification"]["estimators"])
        data = (
            self._variants * self._decided * DECISION_BYTES
            # a curve of a hundred points for every dataset; accuracy and coverages of every mixture
            + shown * len(self.questions) * 3_500
            + shown * self._mixed * (1 + len(self.config["evaluation"]["risks"])) * 230
            + examples
            # in base64
            + pictures * 4 // 3
        )
        # beside them the layer plan of each variant's checkpoint
        disk = PAGE_BYTES + len(FIGURES) * PAGE_FIGURE_BYTES + self._variants * 6_000 + data
        return Estimate(disk=disk, host=PAGE + self._settings * SETTING_READ + 4 * data)


ESTIMATES: Mapping[str, Callable[[_Planner, Job], Estimate]] = {
    "write_dataset": _Planner._write_dataset,
    "select_adversarial": _Planner._select_adversarial,
    "divide_dataset": _Planner._reading,
    "build_questions": _Planner._reading,
    "prepare_model": _Planner._prepare_model,
    "quantize_model": _Planner._quantize_model,
    "import_checkpoint": _Planner._import_checkpoint,
    "stress_model": _Planner._prepare_model,
    "check_questions": _Planner._check_questions,
    "build_calibration": _Planner._build_calibration,
    "train_selector": _Planner._train_selector,
    "score_in_distribution": _Planner._score_in_distribution,
    "write_scores": _Planner._write_scores,
    "train_on_labels": _Planner._train_on_labels,
    "score_on_labels": _Planner._score_on_labels,
    "build_mixtures": _Planner._build_mixtures,
    "evaluate_in_distribution": _Planner._evaluate_in_distribution,
    "break_down_in_distribution": _Planner._break_down_in_distribution,
    "evaluate_variant": _Planner._evaluate_variant,
    "break_down_variant": _Planner._break_down_variant,
    "certify_variant": _Planner._certify_variant,
    "set_operating_points": _Planner._set_operating_points,
    "decide_variant": _Planner._decide_variant,
    "evaluate_learning": _Planner._evaluate_learning,
    "resample_variant": _Planner._resample_variant,
    "compare_variants": _Planner._compare_variants,
    "measure_drift": _Planner._measure_drift,
    "judge_schemes": _Planner._judge_schemes,
    "weigh_components": _Planner._weigh_components,
    "build_question_groups": _Planner._build_question_groups,
    "judge_groups": _Planner._judge_groups,
    "pick_examples": _Planner._pick_examples,
    "dump_features": _Planner._dump_features,
    "dump_matches": _Planner._dump_matches,
    "answer_cell": _Planner._answer_cell,
    "dump_shard": _Planner._dump_shard,
    "gather_features": _Planner._gather_features,
    "tabulate_data": _Planner._tabulate_data,
    "tabulate_accuracy": _Planner._tabulate_accuracy,
    "tabulate_reliability": _Planner._tabulate_reliability,
    "tabulate_members": _Planner._tabulate_members,
    "tabulate_sizes": _Planner._tabulate_sizes,
    "tabulate_certification": _Planner._tabulate_certification,
    "tabulate_comparisons": _Planner._tabulate_comparisons,
    "tabulate_decisions": _Planner._tabulate_decisions,
    "tabulate_shipping": _Planner._tabulate_shipping,
    "tabulate_drift": _Planner._tabulate_drift,
    "tabulate_fairness": _Planner._tabulate_fairness,
    "build_page": _Planner._build_page,
}
"""How the jobs of each rule are estimated. Figures and tables without an entry are estimated alike."""


def _largest(*bytes_of: int | None) -> int | None:
    known = [count for count in bytes_of if count is not None]
    return max(known) if len(known) == len(bytes_of) else None


def _of(asked: Questions | None) -> Estimate:
    return Estimate() if asked is None else Estimate(asked.total)
