"""The table of images and questions, and of what was left out."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from quantrust.artifacts.tables import write_csv
from quantrust.report.results import read_tables


@dataclass(frozen=True)
class Settings:
    """What the table is given beside its inputs.

    Attributes
    ----------
    id_dataset : str
    """

    id_dataset: str


def write(
    csv: str | Path,
    settings: Settings,
    *,
    question_paths: Iterable[str | Path],
    skipped_paths: Iterable[str | Path],
) -> None:
    """Count what is asked and what was left out because an image could not be read, a row per dataset and split.

    Parameters
    ----------
    csv : str or Path
        The file to write, with the columns dataset, split, images, questions, skipped_images, skipped_questions,
        images_in_home_dev: how many of its images are also asked about in dev of the ID dataset, which the Selector
        trains on.
    settings : Settings
    question_paths : iterable of str or Path
        Questions tables.
    skipped_paths : iterable of str or Path
        Tables of the questions left out, as `quantrust.data.questions.build_questions_table` writes them.
    """
    keys = ["dataset", "split"]
    counts = [pl.col("image").n_unique().alias("images"), pl.len().alias("questions")]
    asked = read_tables(question_paths)
    skipped = read_tables(skipped_paths).group_by(keys).agg(*counts)
    trained_on = asked.filter(dataset=settings.id_dataset, split="dev")["image"].unique()
    shared = asked.filter(pl.col("image").is_in(trained_on.to_list())).group_by(keys).agg(counts[0])
    table = asked.group_by(keys, maintain_order=True).agg(*counts)
    for other, names in (
        (skipped, {"images": "skipped_images", "questions": "skipped_questions"}),
        (shared, {"images": "images_in_home_dev"}),
    ):
        table = table.join(other.rename(names), on=keys, how="left", maintain_order="left")
    write_csv(table.fill_null(0), csv)
