"""The study of components: every metric of every scheme of a grid, and which part of the model moves it.

All schemes answer the same questions, and all are resampled together.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from quantrust.artifacts.tables import read_table, write_tables
from quantrust.confidence.catalogue import is_probability
from quantrust.errors import QuantrustError
from quantrust.evaluation.answers import corpus_of, val_answers
from quantrust.evaluation.calibrators import add_calibrated
from quantrust.evaluation.importance import (
    HALVINGS,
    RESAMPLES,
    Answered,
    Stratum,
    full_grid,
    halved_images,
    importance,
    on_halves,
)
from quantrust.evaluation.intervals import LEVEL, interval, metric_interval, null_if_nan
from quantrust.evaluation.members import are_probabilities
from quantrust.evaluation.metric_records import Key, metric_named
from quantrust.evaluation.metrics import Floats, rank
from quantrust.evaluation.resampling import Resampler, draw_images
from quantrust.evaluation.summary import deploy, summarise
from quantrust.evaluation.variant import check_confidences, whole_test_sets
from quantrust.files import read_object
from quantrust.progress import progress

HEAD: dict[str, Any] = {"model": pl.String, "design": pl.String, "method": pl.String}
METRIC: dict[str, Any] = {"estimator": pl.String, "metric": pl.String, "parameter": pl.Float64}
IMPORTANCE_SCHEMA = pl.Schema(
    {
        **HEAD,
        **METRIC,
        "least_bits": pl.Int64,
        "schemes": pl.Int64,
        "equal_levels": pl.Boolean,
        "sd": pl.Float64,
        "sd_low": pl.Float64,
        "sd_high": pl.Float64,
        "interaction": pl.Float64,
        "factor": pl.String,
        "share": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "main": pl.Float64,
        "determined": pl.Boolean,
    }
)
INTERACTIONS_SCHEMA = pl.Schema(
    {
        **HEAD,
        **METRIC,
        "least_bits": pl.Int64,
        "sd": pl.Float64,
        "factors": pl.String,
        "order": pl.Int64,
        "share": pl.Float64,
    }
)
HIGHEST_ORDER = 3
"""Parts of an interaction that is told of by name; those of more parts are in the sum of all alone."""
EFFECTS_SCHEMA = pl.Schema(
    {
        **HEAD,
        **METRIC,
        "factor": pl.String,
        "effect": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "aliases": pl.String,
    }
)


@dataclass(frozen=True)
class GridDesign:
    """A grid of schemes of one method.

    Attributes
    ----------
    name, method : str
    factors : sequence of str
        Parts of the model, in words.
    cells : sequence of (scheme, bits)
        The bits of every factor, in the order of the factors.
    aliases : sequence of str or None
        Of a fraction, for each factor the interactions that cannot be told from its main effect, in words; None for a
        full grid.
    """

    name: str
    method: str
    factors: Sequence[str]
    cells: Sequence[tuple[str, Sequence[int]]]
    aliases: Sequence[str] | None = None

    @property
    def levels(self) -> list[list[int]]:
        """The numbers of bits that each factor takes, increasing."""
        return [sorted(set(taken)) for taken in zip(*(bits for _, bits in self.cells), strict=True)]

    @property
    def two_levels(self) -> bool:
        """Whether every factor takes two numbers of bits."""
        return all(len(levels) == 2 for levels in self.levels)

    @property
    def columns(self) -> list[str]:
        """The columns of the grid's table with the bits of the factors, in the order of the factors.

        Examples
        --------
        >>> GridDesign("d", "hqq", ["vision", "language, first third, mlp"], []).columns
        ['vision_bits', 'language_first_third_mlp_bits']
        """
        return [re.sub(r"\W+", "_", factor) + "_bits" for factor in self.factors]


@dataclass(frozen=True)
class ComponentSettings:
    """What the study of components is given beside its scores.

    Attributes
    ----------
    designs : sequence of mapping
        What `GridDesign` is made from.
    reference : str
        The unquantized scheme, a cell of every design.
    estimators : sequence of str
        By whose confidence answers are kept.
    risk : float in (0, 1)
        The risk limit of coverages and of the deployed risk.
    cost : float
        What a wrong answer costs in effective reliability.
    id_dataset : str
    resamples : int
        Bootstrap resamples of images, for the values of single schemes.
    seed : int
    level : float in (0, 1)
        Nominal coverage of the intervals.
    halvings, half_resamples : int
        As in `quantrust.evaluation.importance.halved_images`.
    corpus_metrics : sequence of str
        The metrics of all answers together that the task of the ID dataset has.
    """

    designs: Sequence[Mapping[str, Any]]
    reference: str
    estimators: Sequence[str]
    risk: float
    cost: float
    id_dataset: str
    resamples: int
    seed: int
    level: float = LEVEL
    halvings: int = HALVINGS
    half_resamples: int = RESAMPLES
    corpus_metrics: Sequence[str] = ()

    @property
    def metrics(self) -> list[Key]:
        """The metrics of the study."""
        return [
            ("accuracy", None),
            *((name, None) for name in self.corpus_metrics),
            ("aurc", None),
            ("coverage_at_risk", self.risk),
            ("deployed_risk", self.risk),
            *([("ece", None)] if any(map(is_probability, self.estimators)) else []),
            ("effective_reliability", self.cost),
        ]


@dataclass(frozen=True)
class _Measured:
    """Metrics of one variant by one estimator: their values, on resamples of all images, and on halves."""

    values: Mapping[Key, float]
    resampled: Mapping[Key, Floats]
    halves: Mapping[Key, Floats]


def grid_schema(designs: Sequence[GridDesign]) -> pl.Schema:
    """Return the columns of the table of all cells of some grids, those of the bits of their factors among them."""
    return pl.Schema(
        {
            **HEAD,
            "scheme": pl.String,
            **{column: pl.Int64 for design in designs for column in design.columns},
            "bytes": pl.Int64,
            "calibrated_on": pl.String,
            **METRIC,
            "value": pl.Float64,
            "low": pl.Float64,
            "high": pl.Float64,
            "difference": pl.Float64,
            "difference_low": pl.Float64,
            "difference_high": pl.Float64,
            "difference_per_mb": pl.Float64,
        }
    )


def write_components(
    scores_paths: Mapping[tuple[str, str], str | Path],
    checkpoints: Mapping[tuple[str, str], str | Path],
    out_paths: Sequence[str | Path],
    settings: ComponentSettings,
) -> None:
    """Tabulate every metric of every scheme of the grids, the shares of the parts, and the main effects of fractions.

    Parameters
    ----------
    scores_paths : mapping of (str, str) to str or Path
        The Parquet file of scores in distribution by model and scheme.
    checkpoints : mapping of (str, str) to str or Path
        The checkpoints of the same variants, or their records alone, for their sizes.
    out_paths : sequence of str or Path
        Four Parquet files to write, with the columns of `grid_schema`, `IMPORTANCE_SCHEMA`, `INTERACTIONS_SCHEMA` and
        `EFFECTS_SCHEMA`.

        The grid has a column of bits for each factor of any design, such as ``vision_bits``, null in the rows of a
        design without that factor. ``bytes`` are those of the weights file, ``calibrated_on`` says whether calibration
        samples passed the ``quantized`` or the ``unquantized`` model (null where a method reads none), and
        ``difference`` is from the reference on the same resamples. ``difference_per_mb`` is the difference
        divided by the megabytes (10^6 bytes) by which the weights file is smaller, null where it is not smaller.

        Of importance there is a row a stratum and factor. Without ``equal_levels`` a factor of the stratum has bits
        that another lacks, so that shares do not compare. ``share``, ``main`` and ``interaction`` are fractions of the
        variance, ``sd`` is in the metric's unit. A share that is not ``determined`` says nothing: the lower bound of
        the part's variance is not above 0. Interactions of two and of three factors have a row each, as fractions of
        the same variance, without intervals; ``factors`` names them, joined by `` x ``. A fraction of a grid has
        neither.

        The last table has the main effects of grids of two levels: ``effect`` is the mean of the metric at the higher
        level of a factor less that at the lower.
    settings : ComponentSettings

    Raises
    ------
    QuantrustError
        If an estimator has no column or an unusable value, there are no val answers, two schemes of a model do not
        answer the same questions, or there are too few images.
    """
    designs = [GridDesign(**design) for design in settings.designs]
    models = list(dict.fromkeys(model for model, _ in scores_paths))
    schemas = (grid_schema(designs), IMPORTANCE_SCHEMA, INTERACTIONS_SCHEMA, EFFECTS_SCHEMA)
    columns = list(dict.fromkeys(column for design in designs for column in design.columns))
    rows: tuple[list[tuple[object, ...]], ...] = ([], [], [], [])
    with progress("resampling schemes", len(scores_paths), "schemes") as bar:
        for model in models:
            schemes = [scheme for name, scheme in scores_paths if name == model]
            found = _measure(model, {scheme: scores_paths[model, scheme] for scheme in schemes}, settings, bar.update)
            records = {scheme: _record(checkpoints[model, scheme]) for scheme in schemes}
            for design in designs:
                head = (model, design.name, design.method)
                for estimator in settings.estimators:
                    measured = {scheme: found[scheme, estimator] for scheme, _ in design.cells}
                    for key in _metrics_of(estimator, settings):
                        named = (estimator, *key)
                        rows[0].extend(_grid_rows(head, named, key, design, columns, measured, records, settings))
                        if design.aliases is None:
                            strata = _strata(key, design, measured, settings)
                            rows[1].extend(_importance_rows(head, named, design, strata))
                            rows[2].extend(_interaction_rows(head, named, strata))
                        if design.two_levels:
                            rows[3].extend(_effect_rows(head, named, key, design, measured, settings))
    tables = [pl.DataFrame(part, schema=schema, orient="row") for part, schema in zip(rows, schemas, strict=True)]
    write_tables(dict(zip(out_paths, tables, strict=True)))


def _metrics_of(estimator: str, settings: ComponentSettings) -> list[Key]:
    """Return the metrics that an estimator is asked for: what depends on the answers alone is told once."""
    first = estimator == settings.estimators[0]
    return [key for key in settings.metrics if first or not metric_named(key[0]).of_answers_alone]


def _record(checkpoint: str | Path) -> tuple[int, str | None]:
    """Return the size of a checkpoint's weights file, and what it was calibrated on."""
    path = Path(checkpoint)
    record = path / "quantization.json" if path.is_dir() else path
    content = read_object(record)
    return int(content["bytes"]["weights_file"]), content["settings"].get("calibrated_on")


def _measure(
    model: str, scores_paths: Mapping[str, str | Path], settings: ComponentSettings, done: Callable[[int], object]
) -> dict[tuple[str, str], _Measured]:
    """Return the metrics of every scheme of a model by every estimator, all on the same resamples."""
    found: dict[tuple[str, str], _Measured] = {}
    asked = draws = halves = None
    for scheme, path in scores_paths.items():
        where = f"{model}/{scheme}"
        scores = add_calibrated(read_table(path), settings.estimators, settings.id_dataset)
        check_confidences(scores, settings.estimators, where)
        val = val_answers(scores, settings.id_dataset, where, "thresholds are set on")
        [test] = whole_test_sets(scores, {}, settings.id_dataset)
        questions = test.answers["question_id"]
        if asked is None:
            asked, images = questions, test.answers["image_id"].to_numpy()
            draws = draw_images(images, settings.resamples, [settings.seed, 0])
            halves = halved_images(images, [settings.seed, 1], settings.halvings, settings.half_resamples)
        if draws is None or halves is None or not questions.equals(asked):
            raise QuantrustError(
                f"{where}: does not answer the same questions of {settings.id_dataset} as the other schemes; expected "
                "scores made from the same questions tables"
            )
        quality, corpus = test.answers["quality"].to_numpy(), corpus_of(test.answers)
        for estimator in settings.estimators:
            ranking = rank(quality, test.answers[estimator], corpus)
            deployment = deploy(rank(val["quality"], val[estimator]), [settings.risk], [settings.cost])
            of_probabilities = are_probabilities(scores, estimator)
            given = ([settings.risk], [settings.cost], deployment, of_probabilities)
            keys = settings.metrics
            resampled = Resampler(quality, draws).evaluate(ranking, *given, wanted=keys)
            found[scheme, estimator] = _Measured(
                summarise(ranking, *given),
                {key: resampled[key] for key in keys},
                on_halves(
                    Answered(quality, ranking, deployment, of_probabilities),
                    halves,
                    keys,
                    [settings.risk],
                    [settings.cost],
                    settings.halvings,
                ),
            )
        done(1)
    return found


def _grid_rows(
    head: tuple[str, ...],
    named: tuple[object, ...],
    key: Key,
    design: GridDesign,
    columns: Sequence[str],
    measured: Mapping[str, _Measured],
    records: Mapping[str, tuple[int, str | None]],
    settings: ComponentSettings,
) -> list[tuple[object, ...]]:
    base = measured[settings.reference]
    rows = []
    for scheme, bits in design.cells:
        own = measured[scheme]
        of_factors = dict(zip(design.columns, bits, strict=True))
        value, resampled = own.values[key], own.resampled[key]
        difference = value - base.values[key]
        saved = (records[settings.reference][0] - records[scheme][0]) / 1e6
        numbers = (
            value,
            *metric_interval(key[0], value, resampled, settings.level),
            difference,
            *interval(resampled - base.resampled[key], settings.level),
            difference / saved if saved > 0 else math.nan,
        )
        cell = (scheme, *map(of_factors.get, columns), *records[scheme])
        rows.append((*head, *cell, *named, *map(null_if_nan, numbers)))
    return rows


def _strata(
    key: Key, design: GridDesign, measured: Mapping[str, _Measured], settings: ComponentSettings
) -> list[Stratum]:
    cells = {tuple(map(float, bits)): measured[scheme].halves[key] for scheme, bits in design.cells}
    return importance(full_grid(design.factors, cells, f"factorial.{design.name}"), settings.level)


def _importance_rows(
    head: tuple[str, ...], named: tuple[object, ...], design: GridDesign, strata: Sequence[Stratum]
) -> list[tuple[object, ...]]:
    return [
        (*head, *named, *_of_stratum(stratum), factor, *_of_factor(stratum, factor))
        for stratum in strata
        for factor in design.factors
    ]


def _interaction_rows(
    head: tuple[str, ...], named: tuple[object, ...], strata: Sequence[Stratum]
) -> list[tuple[object, ...]]:
    return [
        (
            *head,
            *named,
            int(stratum.least_bits),
            null_if_nan(stratum.sd),
            " x ".join(factors),
            len(factors),
            null_if_nan(share),
        )
        for stratum in strata
        for factors, share in stratum.terms.items()
        if 2 <= len(factors) <= HIGHEST_ORDER
    ]


def _of_stratum(stratum: Stratum) -> tuple[object, ...]:
    between = (None, None) if stratum.sd_interval is None else stratum.sd_interval
    numbers = (stratum.sd, *between, stratum.interaction)
    return (int(stratum.least_bits), stratum.schemes, stratum.equal_levels, *map(null_if_nan, numbers))


def _of_factor(stratum: Stratum, factor: str) -> tuple[object, ...]:
    low = None if stratum.low is None else stratum.low[factor]
    high = None if stratum.high is None else stratum.high[factor]
    determined = None if stratum.determined is None else stratum.determined[factor]
    numbers = (stratum.shapley[factor], low, high, stratum.main[factor])
    return (*map(null_if_nan, numbers), determined)


def _effect_rows(
    head: tuple[str, ...],
    named: tuple[object, ...],
    key: Key,
    design: GridDesign,
    measured: Mapping[str, _Measured],
    settings: ComponentSettings,
) -> list[tuple[object, ...]]:
    bits = np.array([bits for _, bits in design.cells])
    values = np.array([measured[scheme].values[key] for scheme, _ in design.cells])
    resampled = np.stack([measured[scheme].resampled[key] for scheme, _ in design.cells])
    rows = []
    for place, factor in enumerate(design.factors):
        high = bits[:, place] == bits[:, place].max()
        effect = float(values[high].mean() - values[~high].mean())
        between = interval(resampled[high].mean(axis=0) - resampled[~high].mean(axis=0), settings.level)
        alias = None if design.aliases is None else design.aliases[place]
        rows.append((*head, *named, factor, *map(null_if_nan, (effect, *between)), alias))
    return rows
