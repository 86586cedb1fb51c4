"""The figures and tables of a report, by the names of their rules and files. The workflow reads it too."""

from collections.abc import Mapping
from typing import Any

from quantrust.confidence.catalogue import OF_ONE_NETWORK

FIGURES = (
    "risk_coverage",
    "mixtures",
    "efficiency",
    "degradation",
    "reliability_diagrams",
    "confidence_histograms",
    "selector_gain",
    "learning_curve",
    "answer_types",
    "question_kinds",
)

TABLES = (
    "data",
    "accuracy",
    "reliability",
    "members",
    "sizes",
    "certification",
    "comparisons",
    "decisions",
    "shipping",
)
"""Those that are written as CSV alone."""

PAPER_TABLES = {"quantization": "maxprob", "selector": "selector"}
"""The paper's main tables, which are written as Markdown and LaTeX as well, with the estimator that each is about."""

PUBLISHED_TABLE = "published"
"""One more of these, where the paper prints figures of the study's variants."""


def figures_of(config: Mapping[str, Any]) -> list[str]:
    """Return the figures that a study has anything for.

    Parameters
    ----------
    config : mapping
        Checked and completed.
    """
    lacking = set()
    if not config["study"]["shifts"]:
        lacking.add("mixtures")
    if "selector" not in config["comparison"]["estimators"] or "maxprob" not in config["study"]["estimators"]:
        lacking.add("selector_gain")
    if not config["selector"]["learning_curve"]:
        lacking.add("learning_curve")
    return [name for name in FIGURES if name not in lacking]


def learning_estimators(config: Mapping[str, Any]) -> list[str]:
    """Return the estimators of a study that are trained on parts of dev: those of one network, not calibrated."""
    return [name for name in config["study"]["estimators"] if name in OF_ONE_NETWORK]


def tables_of(config: Mapping[str, Any]) -> list[str]:
    """Return the tables of `TABLES` that a study has anything for: `members` where an estimator has several."""
    estimators = {name.split("+")[0] for name in config["study"]["estimators"]}
    several = config["selector"]["members"] > 1 and estimators & {*OF_ONE_NETWORK}
    return [name for name in TABLES if several or name != "members"]


def paper_tables_of(config: Mapping[str, Any]) -> list[str]:
    """Return the main tables whose estimator a study has."""
    return [name for name, estimator in PAPER_TABLES.items() if estimator in config["study"]["estimators"]]
