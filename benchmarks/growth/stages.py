"""The stages that are measured, each as its script calls it: those of one variant, and those that read all variants.

They run in the folder of a study of `growth.study`. Each takes the config of the study; those of one variant also take
the scheme.
"""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

from growth.study import MODEL, write_named
from quantrust.artifacts.tables import read_table
from quantrust.evaluation.answers import Tables
from quantrust.evaluation.breakdowns import BreakdownSettings, break_down
from quantrust.evaluation.certification import CertificationSettings, evaluate_certification
from quantrust.evaluation.comparison import ComparisonSettings, write_comparisons
from quantrust.evaluation.decisions import DecisionSettings, decide_variant
from quantrust.evaluation.drift_from_bf16 import DriftSettings, write_drift
from quantrust.evaluation.examples import ExampleSettings, write_examples
from quantrust.evaluation.fairness import FairnessSettings, write_fairness
from quantrust.evaluation.limits import risk_limits
from quantrust.evaluation.operating_points import read_operating_points
from quantrust.evaluation.resampled_variant import ResamplingSettings, write_resampled
from quantrust.evaluation.shipped_points import PointSettings, write_shipped_points
from quantrust.evaluation.shipping import ShippingSettings, write_shipping
from quantrust.evaluation.variant import EvaluationSettings, evaluate_variant
from quantrust.report.contents import ENTRIES, REFERENCE, Entry, Figure, datasets_of, figures_of, inputs_of, tables_of
from quantrust.report.item_words import Words
from quantrust.report.making import draw_figure, write_table
from quantrust.report.page.build import Sources, write_page
from quantrust.report.wording import speaking_of
from quantrust.study import contents, paths, settings

Config = Mapping[str, Any]

IMPORTED = ("matplotlib.backends.backend_pdf", "quantrust.evaluation.fairness", "quantrust.report.page.build")
"""Modules that import most of what the stages do."""


def evaluate(config: Config, scheme: str) -> None:
    """Compute metrics and curves of a variant."""
    _from_scores(config, scheme, ("metrics", "curves"), evaluate_variant, EvaluationSettings, settings.evaluation)


def break_down_by_kind(config: Config, scheme: str) -> None:
    """Break a variant down by kind of question and bin of confidence."""
    _from_scores(config, scheme, ("groups", "bins"), break_down, BreakdownSettings, settings.breakdown)


def resample(config: Config, scheme: str) -> None:
    """Resample a variant for comparisons and verdicts."""
    write_resampled(
        paths.SCORES.format(model=MODEL, scheme=scheme),
        _mixtures(config),
        paths.RESAMPLED.format(reports=_reports(config), model=MODEL, scheme=scheme),
        model=MODEL,
        scheme=scheme,
        settings=ResamplingSettings(**settings.resampling(config)),
    )


def certify(config: Config, scheme: str) -> None:
    """Certify a variant on random halves."""
    _from_scores(
        config, scheme, ("certification",), evaluate_certification, CertificationSettings, settings.certification
    )


def set_operating_points(config: Config, scheme: str) -> None:
    """Set the thresholds that a variant ships with."""
    id_dataset = config["study"]["id_dataset"]
    write_shipped_points(
        paths.SCORES.format(model=MODEL, scheme=scheme),
        _mixtures(config),
        paths.FEATURES.format(model=MODEL, scheme=scheme, dataset=id_dataset),
        paths.OPERATING_POINTS.format(model=MODEL, scheme=scheme),
        model=MODEL,
        scheme=scheme,
        settings=PointSettings(**settings.operating_points(config, scheme)),
    )


def decide(config: Config, scheme: str) -> None:
    """Tabulate a variant's thresholds over the grid of limits."""
    own = settings.decisions(config)
    tables = decide_variant(
        read_table(paths.SCORES.format(model=MODEL, scheme=scheme)),
        {dataset: read_table(path) for dataset, path in _mixtures(config).items()},
        model=MODEL,
        scheme=scheme,
        shipped=read_operating_points(paths.OPERATING_POINTS.format(model=MODEL, scheme=scheme)),
        settings=DecisionSettings(risks=risk_limits(**config["report"]["limits"]), **own),
    )
    write_named("decisions", tables, scheme)


OF_ONE: dict[str, Callable[[Config, str], None]] = {
    "evaluate_variant": evaluate,
    "break_down_variant": break_down_by_kind,
    "resample_variant": resample,
    "certify_variant": certify,
    "set_operating_points": set_operating_points,
    "decide_variant": decide,
}
"""Stages of one variant by the names of their rules, in an order in which they can run."""


def compare_variants(config: Config) -> None:
    """Compare all variants with the unquantized one."""
    write_comparisons(
        _by_variant(config, _resampled(config)),
        paths.COMPARISONS.format(reports=_reports(config)),
        ComparisonSettings(**settings.comparison(config)),
    )


def judge_schemes(config: Config) -> None:
    """Hold all schemes against the shipping criterion."""
    write_shipping(
        _by_variant(config, _resampled(config)),
        paths.SHIPPING.format(reports=_reports(config)),
        ShippingSettings(**settings.shipping(config)),
    )


def judge_groups(config: Config) -> None:
    """Judge groups of questions under all variants."""
    write_fairness(
        _by_variant(config, paths.SCORES),
        _mixtures(config),
        {},
        paths.FAIRNESS.format(reports=_reports(config)),
        FairnessSettings(**settings.fairness(config)),
    )


def measure_drift(config: Config) -> None:
    """Compare single answers of all variants with those of the unquantized one."""
    write_drift(
        _by_variant(config, paths.SCORES),
        _features(config),
        paths.DRIFT.format(reports=_reports(config)),
        DriftSettings(**settings.drift(config)),
    )


def pick_examples(config: Config) -> None:
    """Draw example questions of all variants."""
    write_examples(
        _questions(config),
        _by_variant(config, paths.SCORES),
        _features(config),
        _by_variant(config, paths.DECISIONS),
        paths.EXAMPLES.format(reports=_reports(config)),
        ExampleSettings(**settings.examples(config)),
    )


def make_entry(config: Config, name: str) -> None:
    """Draw a figure or write a table, by the name of its rule."""
    (entry,) = (one for one in ENTRIES if one.rule == name)
    make = draw_figure if isinstance(entry, Figure) else write_table
    make(
        entry.dotted_module,
        entry.files(_reports(config)),
        inputs_of(entry, config, str(REFERENCE)),
        entry.settings(config),
        settings.words(config),
    )


def build_page(config: Config) -> None:
    """Build the page."""
    reports, captions = _reports(config), settings.figure_captions(config)
    figures = {figure.name: figure.files(reports)["png"] for figure in figures_of(config)}
    of_variants = {name: _by_variant(config, getattr(paths, name.upper())) for name in ("metrics", "curves", "scores")}
    tables = ("decisions", "shipping", "sizes", "data", "fairness")
    sources = Sources(
        **of_variants,
        checkpoints=_by_variant(config, paths.CHECKPOINT),
        features=_features(config),
        questions=_questions(config),
        comparisons=paths.COMPARISONS.format(reports=reports),
        examples=paths.EXAMPLES.format(reports=reports),
        figures={name: figures[name] for name in captions},
        **{name: f"{reports}/tables/{name}.csv" for name in tables},
    )
    with speaking_of(Words(**settings.words(config))):
        write_page(
            sources,
            paths.PAGE.format(reports=reports),
            captions=captions,
            config=settings.shown_config(config),
            workflow={"snakemake": "9"},
        )


def of_all(config: Config) -> dict[str, tuple[Callable[..., None], tuple[Any, ...]]]:
    """Return the stages that read all variants by the names of their rules, in an order in which they can run."""
    judged = (compare_variants, judge_schemes, judge_groups, measure_drift, pick_examples)
    entries: list[Entry] = [*tables_of(config), *figures_of(config)]
    return {
        **{function.__name__: (function, (config,)) for function in judged},
        **{entry.rule: (make_entry, (config, entry.rule)) for entry in entries},
        build_page.__name__: (build_page, (config,)),
    }


def _from_scores(
    config: Config,
    scheme: str,
    names: tuple[str, ...],
    function: Callable[..., Tables],
    kind: Callable[..., Any],
    own: Callable[[Any], dict[str, Any]],
) -> None:
    """Evaluate a variant from its files, and write the tables of these names."""
    found = function(
        read_table(paths.SCORES.format(model=MODEL, scheme=scheme)),
        {dataset: read_table(path) for dataset, path in _mixtures(config).items()},
        model=MODEL,
        scheme=scheme,
        settings=kind(**own(config)),
    )
    for name, table in zip(names, found if isinstance(found, tuple) else (found,), strict=True):
        write_named(name, table, scheme)


def _reports(config: Config) -> str:
    return config["report"]["folder"]


def _resampled(config: Config) -> str:
    return paths.RESAMPLED.replace("{reports}", _reports(config))


def _mixtures(config: Config) -> dict[str, str]:
    return {dataset: paths.MIXTURES.format(dataset=dataset) for dataset in config["study"]["shifts"]}


def _questions(config: Config) -> dict[str, str]:
    return {dataset: paths.QUESTIONS.format(dataset=dataset) for dataset in datasets_of(config)}


def _by_variant(config: Config, pattern: str) -> dict[tuple[str, str], str]:
    return dict(zip(contents.variants_of(config), contents.of_variants(config, pattern), strict=True))


def _features(config: Config) -> dict[tuple[str, str, str], str]:
    return {
        (model, scheme, dataset): paths.FEATURES.format(model=model, scheme=scheme, dataset=dataset)
        for (model, scheme), dataset in product(contents.variants_of(config), datasets_of(config))
    }
