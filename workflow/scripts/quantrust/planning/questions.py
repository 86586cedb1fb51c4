"""How many questions a dataset asks, without building its questions table."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrust.data.format import file_of_questions, files_of, load_format
from quantrust.data.splits import read_split_file, split_by_image
from quantrust.study.contents import EMBEDDED, ID_SPLITS, SHIFT_SPLIT

SPLIT_OF_ALL = "all"


@dataclass(frozen=True)
class Questions:
    """The questions of a dataset.

    Attributes
    ----------
    total : int
    by_split : dict of str to int, or None
        None where only the files know.
    exact : bool
        Whether `by_split` is counted; else it is what the shares of the splits come to.
    source : {"config", "files", "size"}
        The settings of an embedded dataset, the official files, or the entry `size` of the config.
    """

    total: int
    by_split: dict[str, int] | None
    exact: bool
    source: str

    def of(self, *splits: str) -> int | None:
        """Return the questions of some splits together; None where that is not known."""
        return None if self.by_split is None else sum(self.by_split.get(split, 0) for split in splits)


def count_questions(dataset: Mapping[str, Any], is_id_dataset: bool) -> Questions | None:
    """Count the questions of a dataset.

    Parameters
    ----------
    dataset : mapping
        Its section of the config.
    is_id_dataset : bool
        Whether it is the ID dataset: of a dataset with a split file a shift reads the split test alone.

    Returns
    -------
    Questions or None
        None where neither the official files nor `size` are there.

    Raises
    ------
    QuantrustError
        If official files are there, but cannot be counted.
    """
    if dataset["format"] == EMBEDDED:
        return _embedded(dataset)
    parts = dataset.get("splits", {SPLIT_OF_ALL: dataset})
    paths = {split: Path(file_of_questions(dataset["format"], files)) for split, files in parts.items()}
    if all(path.is_file() for path in paths.values()):
        images = {split: _images(dataset["format"], files) for split, files in parts.items()}
        return _counted(dataset, images, is_id_dataset)
    if "size" not in dataset:
        return None
    return _sized(dataset)


def _images(name: str, files: Mapping[str, Any]) -> list[str]:
    """Return the image of each question that official files list."""
    file_format = load_format(name)
    if "subset" in files:
        return [question.image_id for question in file_format.read(files_of(files))]
    return [asked.image_id for asked in file_format.listed(file_of_questions(name, files))]


def candidates(dataset: Mapping[str, Any]) -> int:
    """Return how many candidates the questions of an adversarially selected dataset are chosen from."""
    return dataset["images"] * dataset["questions_per_image"]


def _embedded(dataset: Mapping[str, Any]) -> Questions:
    if "captions" in dataset:
        # a caption that others repeat is no query, so that of captions there may be fewer
        each = dataset.get("questions_per_image", 1) + dataset.get("captions_per_image", 0)
        by_split = {split: dataset["images"][split] * each for split in ID_SPLITS if split in dataset["images"]}
        return Questions(sum(by_split.values()), by_split, "captions_per_image" not in dataset, "config")
    by_split = {SHIFT_SPLIT: dataset["questions"] if "adversary" in dataset else dataset["images"]}
    return Questions(sum(by_split.values()), by_split, exact=True, source="config")


def _counted(dataset: Mapping[str, Any], images: Mapping[str, list[str]], is_id_dataset: bool) -> Questions:
    if SPLIT_OF_ALL not in images:
        by_split = {split: len(found) for split, found in images.items()}
    else:
        asked = images[SPLIT_OF_ALL]
        if "split" in dataset:
            shares = {split: dataset["split"][split] for split in ID_SPLITS}
            table = split_by_image(asked, shares, dataset["split"]["seed"])
        else:
            table = read_split_file(dataset["split_file"], asked, ID_SPLITS if is_id_dataset else (SHIFT_SPLIT,))
        split_of = dict(table.iter_rows())
        by_split = dict(Counter(split_of[image] for image in asked))
    return Questions(sum(by_split.values()), by_split, exact=True, source="files")


def _sized(dataset: Mapping[str, Any]) -> Questions:
    total = dataset["size"]
    if "split" in dataset:
        by_split = {split: round(dataset["split"][split] * total) for split in ID_SPLITS}
        return Questions(total, by_split, exact=False, source="size")
    if len(dataset.get("splits", {})) == 1:
        return Questions(total, {next(iter(dataset["splits"])): total}, exact=True, source="size")
    return Questions(total, None, exact=False, source="size")
