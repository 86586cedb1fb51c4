"""Numbers that the paper prints, read from the file that holds them, by the names that a study gives its variants."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Published:
    """The numbers that the paper prints for one ID dataset.

    Attributes
    ----------
    source : str
        Title and number of the paper.
    numbers : mapping of (model, scheme, estimator) to mapping of (metric, parameter) to float
        Fractions, without those that the paper does not print; a model under each of its names, a scheme under the
        paper's name for it (`paper_scheme`). Empty for a dataset that the paper's tables are not of.
    """

    source: str
    numbers: Mapping[tuple[str, str, str], Mapping[tuple[str, float | None], float]]

    def of_variant(self, model: str, scheme: str, estimator: str) -> Mapping[tuple[str, float | None], float]:
        """Return the numbers of a variant by metric and parameter; none where the paper has none."""
        return self.numbers.get((model, paper_scheme(scheme), estimator), {})

    def has_any(self, variants: Iterable[tuple[str, str]], estimators: Collection[str]) -> bool:
        """Return whether the paper prints a number for one of these variants (model, scheme) under an estimator."""
        return any(self.of_variant(*variant, estimator) for variant in variants for estimator in estimators)


def read_published(path: str | Path, id_dataset: str) -> Published:
    """Read the numbers that the paper prints for a study's ID dataset.

    Parameters
    ----------
    path : str or Path
        The shipped `config/paper_reference.yaml`.
    id_dataset : str
        The ID dataset of the study.
    """
    reference = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if id_dataset != reference["dataset"]:
        return Published(reference["source"], {})
    keys = [tuple(key) for key in reference["metrics"]]
    return Published(
        reference["source"],
        {
            (model, scheme, estimator): {
                # Printed in percent with one decimal: rounding gives the very fraction that is meant.
                key: round(value / 100, 6)
                for key, value in zip(keys, values, strict=True)
                if value is not None
            }
            for entry in reference["models"]
            for model in entry["names"]
            for scheme, by_estimator in entry["numbers"].items()
            for estimator, values in by_estimator.items()
        },
    )


def paper_scheme(scheme: str) -> str:
    """Return the name that a scheme has in the paper, which quantizes the language model's linears in groups.

    Examples
    --------
    >>> paper_scheme("mbq-w4g128"), paper_scheme("bf16"), paper_scheme("mbq-w4g128-full")
    ('mbq-w4', 'bf16', 'mbq-w4g128-full')
    """
    head, _, group = scheme.partition("g")
    return head if group.isdigit() else scheme
