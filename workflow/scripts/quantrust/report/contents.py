"""What a report consists of: an entry for each figure and table.

The workflow makes a rule of every entry, `quantrust plan` a job, and the page shows every figure. The module that an
entry names is found by its name and is not imported here, so that each figure is drawn again for its own module alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, ClassVar

from quantrust.confidence.catalogue import OF_ONE_NETWORK, is_probability
from quantrust.data.format import load_format
from quantrust.digest import SCRIPTS
from quantrust.embedded.catalogue import format_of
from quantrust.named_modules import FIGURES as FIGURE_MODULES
from quantrust.named_modules import TABLES as TABLE_MODULES
from quantrust.quantization.factorial import designs_of, grids_for_tables
from quantrust.quantization.scheme import UNQUANTIZED
from quantrust.report.published import read_published

Config = Mapping[str, Any]
Pattern = str | tuple[str, ...]

REFERENCE = SCRIPTS.parents[1] / "config" / "paper_reference.yaml"
"""What the paper prints."""


def _every(folder: str) -> str:
    """Return the pattern of a table that every variant has one of."""
    return f"data/{folder}/{{model}}/{{scheme}}.parquet"


COMPARISONS = "{study_data}/comparisons.parquet"
FAIRNESS = "{study_data}/fairness.parquet"
DRIFT = "{study_data}/drift.parquet"
PUBLISHED = "{published}"


def _nothing(config: Config) -> dict[str, Any]:
    return {}


def _always(config: Config) -> bool:
    return True


@dataclass(frozen=True)
class Entry(ABC):
    """A figure or table.

    Attributes
    ----------
    name : str
        Of its files and of its caption, `workflow/report/<name>.rst`.
    label : str
        What the report that Snakemake writes calls it.
    module : str
        The module that draws or writes it, in the package of its kind.
    inputs : mapping of str to str or tuple of str
        Patterns of paths, by the names that the module takes the paths under. `{model}` and `{scheme}` stand for those
        of every variant of the study, `{dataset}` for every dataset, `{reports}` for the folder of reports,
        `{study_data}` for that of results of all variants together, and `{published}` for the file of the paper's
        numbers. A pattern of variants or datasets gives a list of paths, as does a tuple; any other gives one path.
    settings : callable
        Takes the config and returns what the module's `Settings` are made from; empty where it has none. A change of
        one of these values, and of nothing else in the config, makes the figure or table again.
    wanted : callable
        Takes the config and returns whether the study has anything to show here.
    """

    name: str
    label: str
    module: str
    inputs: Mapping[str, Pattern]
    settings: Callable[[Config], dict[str, Any]] = field(default=_nothing, kw_only=True)
    wanted: Callable[[Config], bool] = field(default=_always, kw_only=True)

    kind: ClassVar[str]
    """In Snakemake's report the name of the column of labels."""
    category: ClassVar[str]
    """In Snakemake's report the heading above."""
    package: ClassVar[str]
    """Where modules of this kind are, named with dots."""
    shown: ClassVar[str]
    """Which of the files Snakemake's report shows."""

    @property
    @abstractmethod
    def rule(self) -> str:
        """The name of the rule that makes it."""

    @abstractmethod
    def files(self, folder: str) -> dict[str, str]:
        """Return the paths of its files below the folder of reports, by the names that the module takes them under."""

    @property
    def dotted_module(self) -> str:
        """The module with its packages."""
        return f"{self.package}.{self.module}"


@dataclass(frozen=True)
class Figure(Entry):
    """A figure, whose module defines `draw`; its rule has its name."""

    kind = "figure"
    category = "Figures"
    package = FIGURE_MODULES
    shown = "png"

    @property
    def rule(self) -> str:
        return self.name

    def files(self, folder: str) -> dict[str, str]:
        return {extension: f"{folder}/{self.name}.{extension}" for extension in ("pdf", "png")}


@dataclass(frozen=True)
class Table(Entry):
    """A table, whose module defines `write`; its rule is `tabulate_<name>`.

    Attributes
    ----------
    for_papers : bool
        Whether it is written as Markdown and LaTeX beside the CSV.
    """

    for_papers: bool = field(default=False, kw_only=True)

    kind = "table"
    category = "Tables"
    package = TABLE_MODULES
    shown = "csv"

    @property
    def rule(self) -> str:
        return f"tabulate_{self.name}"

    def files(self, folder: str) -> dict[str, str]:
        extensions = {"csv": "csv", "markdown": "md", "latex": "tex"} if self.for_papers else {"csv": "csv"}
        return {name: f"{folder}/tables/{self.name}.{extension}" for name, extension in extensions.items()}


def _id_dataset(config: Config) -> dict[str, Any]:
    return {"id_dataset": config["study"]["id_dataset"]}


def _level(config: Config) -> dict[str, Any]:
    return {"level": config["evaluation"]["confidence_level"]}


def _shown_risks(config: Config) -> dict[str, Any]:
    return {"risks": config["report"]["risks"]}


def _shown_risk(config: Config) -> dict[str, Any]:
    return {"risk": max(config["report"]["risks"])}


def _at_risks(config: Config) -> dict[str, Any]:
    return {**_id_dataset(config), **_shown_risks(config), **_level(config)}


def _paper_table(*estimators: str) -> Callable[[Config], dict[str, Any]]:
    return lambda config: {
        **_id_dataset(config),
        "estimators": list(estimators),
        "risks": config["evaluation"]["risks"],
        "costs": config["evaluation"]["costs"],
        "resamples": config["comparison"]["resamples"],
        **_level(config),
    }


def _grids(config: Config) -> dict[str, Any]:
    return {
        "designs": grids_for_tables(config),
        **_id_dataset(config),
        "estimator": config["report"]["shipping"]["estimators"][0],
        "risk": config["report"]["shipping"]["risk"],
        **_level(config),
    }


def _has_grids(config: Config) -> bool:
    return bool(config["factorial"])


def _grids_of_parts(config: Config) -> list[str]:
    """Return the whole grids of vision, connector and language model, or of two of them."""
    parts = {"vision", "connector", "language"}
    names = (design.name for design in designs_of(config) if not design.fraction and set(design.labels) <= parts)
    return list(dict.fromkeys(names))


def has_published_shares(config: Config) -> bool:
    """Return whether a study has a grid whose shares may stand beside the published ones."""
    return bool(_grids_of_parts(config))


def _groups_questions(config: Config) -> bool:
    return bool(config["evaluation"]["groups"])


def own_groupings(config: Config, dataset: str) -> list[str]:
    """Return the groupings that a dataset has of itself: captions have none."""
    return list(load_format(format_of(dataset, config["datasets"][dataset])).groupings)


def _has_grouping(grouping: str) -> Callable[[Config], bool]:
    return lambda config: grouping in own_groupings(config, config["study"]["id_dataset"])


def has_drift(config: Config) -> bool:
    """Return whether a study has the unquantized model and schemes that can drift from it."""
    schemes = config["study"]["schemes"]
    return UNQUANTIZED in schemes and len(schemes) > 1


def has_probabilities(config: Config) -> bool:
    """Return whether the confidence of an estimator of a study is a probability, so that it can be miscalibrated."""
    return any(is_probability(name) for name in config["study"]["estimators"])


def _has_several_networks(config: Config) -> bool:
    return config["selector"]["members"] > 1 and any(
        name.split("+")[0] in OF_ONE_NETWORK for name in config["study"]["estimators"]
    )


def is_in_the_paper(config: Config) -> bool:
    """Return whether the paper prints results of any variant of a study, on the ID dataset of the study."""
    study = config["study"]
    variants = product(study["models"], study["schemes"])
    return read_published(REFERENCE, study["id_dataset"]).has_any(variants, study["estimators"])


FIGURES = (
    Figure(
        "risk_coverage",
        "Risk and coverage",
        "risk_coverage",
        {"curve_paths": _every("in_distribution/curves"), "metric_paths": _every("in_distribution/metrics")},
        settings=_at_risks,
    ),
    Figure(
        "mixtures",
        "Mixtures with shifted questions",
        "mixtures",
        {"metric_paths": _every("metrics")},
        settings=_at_risks,
        wanted=lambda config: bool(config["study"]["shifts"]),
    ),
    Figure(
        "efficiency",
        "Efficiency and reliability",
        "efficiency",
        {"metric_paths": _every("in_distribution/metrics"), "sizes_path": "{reports}/tables/sizes.csv"},
        settings=_at_risks,
    ),
    Figure(
        "degradation",
        "Degradation by bits",
        "degradation",
        {"metric_paths": _every("in_distribution/metrics")},
        settings=_at_risks,
    ),
    Figure(
        "drift_from_bf16",
        "Drift from bf16",
        "drift",
        {"drift_path": DRIFT},
        settings=_level,
        wanted=has_drift,
    ),
    Figure(
        "reliability_diagrams",
        "Reliability diagrams",
        "reliability_diagrams",
        {"bin_paths": _every("in_distribution/bins")},
        settings=lambda config: {**_id_dataset(config), **_level(config)},
        wanted=has_probabilities,
    ),
    Figure(
        "confidence_histograms",
        "Confidence of right and wrong answers",
        "confidence_histograms",
        {"bin_paths": _every("in_distribution/bins")},
        settings=_id_dataset,
        wanted=has_probabilities,
    ),
    Figure(
        "selector_gain",
        "Selector gain",
        "selector_gain",
        {"comparisons_path": COMPARISONS},
        settings=lambda config: {**_shown_risks(config), **_level(config)},
        wanted=lambda config: (
            "selector" in config["comparison"]["estimators"] and "maxprob" in config["study"]["estimators"]
        ),
    ),
    Figure(
        "learning_curve",
        "Labels and Selectors",
        "learning_curve",
        {"curve_paths": _every("learning/curves")},
        settings=lambda config: {**_shown_risk(config), **_level(config)},
        wanted=lambda config: bool(config["selector"]["learning_curve"]),
    ),
    Figure(
        "answer_types",
        "By type of answer",
        "groups",
        {"group_paths": _every("groups")},
        settings=lambda config: {
            "grouping": "answer_type",
            "datasets": datasets_of(config),
            **_shown_risk(config),
            **_level(config),
        },
        wanted=_has_grouping("answer_type"),
    ),
    Figure(
        "question_kinds",
        "By kind of question",
        "groups",
        {"group_paths": _every("in_distribution/groups")},
        settings=lambda config: {
            "grouping": "question_kind",
            "datasets": [config["study"]["id_dataset"]],
            **_shown_risk(config),
            **_level(config),
        },
        wanted=_has_grouping("question_kind"),
    ),
    Figure(
        "fairness_by_group",
        "Fairness by group",
        "fairness",
        {"fairness_path": FAIRNESS},
        settings=lambda config: {
            **_id_dataset(config),
            "groupings": config["evaluation"]["groups"],
            "estimator": config["report"]["shipping"]["estimators"][0],
            "risk": config["report"]["shipping"]["risk"],
            **_level(config),
        },
        wanted=_groups_questions,
    ),
    Figure(
        "part_importance",
        "Which part matters",
        "importance",
        {"importance_path": "{study_data}/importance.parquet"},
        settings=_grids,
        wanted=_has_grids,
    ),
    Figure(
        "grid_heatmaps",
        "Grids of schemes",
        "grid_heatmaps",
        {"grid_path": "{study_data}/grid.parquet"},
        settings=_grids,
        wanted=_has_grids,
    ),
    Figure(
        "grid_interactions",
        "Parts together",
        "grid_interactions",
        {"grid_path": "{study_data}/grid.parquet"},
        settings=_grids,
        wanted=_has_grids,
    ),
    Figure(
        "part_effects",
        "Parts alone",
        "part_effects",
        {"effects_path": "{study_data}/effects.parquet"},
        settings=_grids,
        wanted=lambda config: any(design.two_levels for design in designs_of(config)),
    ),
    Figure(
        "mixed_precision",
        "Mixed precision by bytes",
        "mixed_precision",
        {"grid_path": "{study_data}/grid.parquet"},
        settings=_grids,
        wanted=_has_grids,
    ),
)

TABLES = (
    Table(
        "data",
        "Data",
        "data",
        {"question_paths": "data/questions/{dataset}.parquet", "skipped_paths": "data/skipped/{dataset}.parquet"},
        settings=_id_dataset,
    ),
    Table("accuracy", "Accuracy", "accuracy", {"metric_paths": _every("metrics")}, settings=_id_dataset),
    Table(
        "reliability",
        "Reliability",
        "reliability",
        {"metric_paths": _every("metrics")},
        settings=lambda config: {**_id_dataset(config), "risks": config["evaluation"]["risks"]},
    ),
    Table(
        "members",
        "Another training of the Selector",
        "members",
        {"metric_paths": _every("metrics")},
        settings=lambda config: {**_id_dataset(config), **_shown_risks(config)},
        wanted=_has_several_networks,
    ),
    Table("sizes", "Sizes", "sizes", {"checkpoints": "data/checkpoints/{model}/{scheme}"}),
    Table("certification", "Certified thresholds", "as_is", {"paths": _every("certification")}),
    Table("comparisons", "Paired comparisons", "as_is", {"paths": (COMPARISONS,)}),
    Table("decisions", "Decisions: every risk limit", "as_is", {"paths": _every("decisions")}),
    Table("shipping", "What schemes keep of bf16", "as_is", {"paths": ("{study_data}/shipping.parquet",)}),
    Table("drift", "Single answers against bf16", "as_is", {"paths": (DRIFT,)}, wanted=has_drift),
    Table(
        "fairness",
        "Groups under one threshold",
        "as_is",
        {"paths": (FAIRNESS,)},
        wanted=_groups_questions,
    ),
    Table("grid", "Every scheme of the grids", "as_is", {"paths": ("{study_data}/grid.parquet",)}, wanted=_has_grids),
    Table(
        "importance",
        "Shares of the parts",
        "as_is",
        {"paths": ("{study_data}/importance.parquet",)},
        wanted=_has_grids,
    ),
    Table(
        "interactions",
        "Interactions of the parts",
        "as_is",
        {"paths": ("{study_data}/interactions.parquet",)},
        wanted=_has_grids,
    ),
    Table("effects", "Main effects", "as_is", {"paths": ("{study_data}/effects.parquet",)}, wanted=_has_grids),
    Table(
        "published_importance",
        "Beside the published shares",
        "published_importance",
        {"importance_path": "{study_data}/importance.parquet"},
        settings=lambda config: {"designs": _grids_of_parts(config)},
        wanted=has_published_shares,
    ),
    Table(
        "quantization",
        "Quantization under MaxProb (main table)",
        "paper",
        {
            "metric_paths": _every("in_distribution/metrics"),
            "comparisons_path": COMPARISONS,
            "published_path": PUBLISHED,
        },
        settings=_paper_table("maxprob"),
        wanted=lambda config: "maxprob" in config["study"]["estimators"],
        for_papers=True,
    ),
    Table(
        "selector",
        "MaxProb and Selector (main table)",
        "paper",
        {
            "metric_paths": _every("in_distribution/metrics"),
            "comparisons_path": COMPARISONS,
            "published_path": PUBLISHED,
        },
        settings=_paper_table("maxprob", "selector"),
        wanted=lambda config: "selector" in config["study"]["estimators"],
        for_papers=True,
    ),
    Table(
        "published",
        "Beside the paper's numbers",
        "published",
        {"metric_paths": _every("in_distribution/metrics"), "published_path": PUBLISHED},
        settings=lambda config: {**_id_dataset(config), **_level(config)},
        wanted=is_in_the_paper,
        for_papers=True,
    ),
)

ENTRIES: tuple[Entry, ...] = (*TABLES, *FIGURES)


def figures_of(config: Config) -> list[Figure]:
    """Return the figures that a study has anything for, in the order of the page.

    Parameters
    ----------
    config : mapping
        Checked and completed.
    """
    return [figure for figure in FIGURES if figure.wanted(config)]


def tables_of(config: Config) -> list[Table]:
    """Return the tables that a study has anything for.

    Parameters
    ----------
    config : mapping
        Checked and completed.
    """
    return [table for table in TABLES if table.wanted(config)]


def inputs_of(entry: Entry, config: Config, published: str) -> dict[str, str | list[str]]:
    """Return the paths that a figure or table is made from, by name; variants by model and then by scheme.

    Parameters
    ----------
    entry : Entry
    config : mapping
        Checked and completed.
    published : str
        Where the paper's numbers lie, as seen from the folder of the study.
    """
    folder = config["report"]["folder"]
    places = {"reports": folder, "study_data": f"data/studies/{folder}", "published": published}
    return {name: _paths(pattern, config, places) for name, pattern in entry.inputs.items()}


def _paths(pattern: Pattern, config: Config, places: Mapping[str, str]) -> str | list[str]:
    if isinstance(pattern, tuple):
        found = [_paths(one, config, places) for one in pattern]
        return [path for paths in found for path in ([paths] if isinstance(paths, str) else paths)]
    for name, place in places.items():
        pattern = pattern.replace(f"{{{name}}}", place)
    study = config["study"]
    if "{model}" in pattern:
        return [
            pattern.replace("{model}", model).replace("{scheme}", scheme)
            for model, scheme in product(study["models"], study["schemes"])
        ]
    if "{dataset}" in pattern:
        return [pattern.replace("{dataset}", dataset) for dataset in datasets_of(config)]
    return pattern


def datasets_of(config: Config) -> list[str]:
    """Return the datasets of a study, the ID dataset first."""
    return [config["study"]["id_dataset"], *config["study"]["shifts"]]


def learning_estimators(config: Config) -> list[str]:
    """Return the estimators of a study that are trained on parts of dev: those of one network, not calibrated."""
    return [name for name in config["study"]["estimators"] if name in OF_ONE_NETWORK]
