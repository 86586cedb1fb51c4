"""The figures and tables of a report, by the names of their rules and files. The workflow reads it too."""

FIGURES = (
    "risk_coverage",
    "mixtures",
    "efficiency",
    "degradation",
    "reliability_diagrams",
    "confidence_histograms",
    "selector_gain",
    "answer_types",
    "question_kinds",
)

TABLES = ("data", "accuracy", "reliability", "sizes", "certification", "comparisons", "decisions", "shipping")
"""Those that are written as CSV alone."""

PAPER_TABLES = ("quantization", "selector")
"""The paper's main tables, which are written as Markdown and LaTeX as well."""

PUBLISHED_TABLE = "published"
"""One more of these, where the paper prints figures of the study's variants."""
