"""The embedded datasets: the official format of each, and the names of its files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EMBEDDED = "embedded"
"""What the config has in the place of the format of such a dataset."""


@dataclass(frozen=True)
class EmbeddedDataset:
    """How an embedded dataset lies in its folder.

    Attributes
    ----------
    format : str
        A module of `quantrust.data.formats`.
    files : mapping of str to str
        Names of the files in the folder by the parts of the format, with `{split}` in the place of a split. Pictures
        are in `images/`.
    is_chosen : bool
        Whether it is chosen from another dataset by a model's answers. The others are written, each by its function in
        `quantrust.embedded.datasets`.
    """

    format: str
    files: Mapping[str, str]
    is_chosen: bool = False


_VQAV2 = {"questions": "questions_{split}.json", "annotations": "annotations_{split}.json"}
EMBEDDED_DATASETS: Mapping[str, EmbeddedDataset] = {
    "scenes": EmbeddedDataset("vqav2", _VQAV2),
    "scenes-captions": EmbeddedDataset("scene_captions", {"annotations": "captions_{split}.json"}),
    "scenes-retrieval": EmbeddedDataset("flickr30k", {"annotations": "dataset_scenes.json"}),
    "scenes-language-candidates": EmbeddedDataset("vqav2", _VQAV2),
    "scenes-language": EmbeddedDataset("vqav2", _VQAV2, is_chosen=True),
    "scenes-multimodal": EmbeddedDataset("vizwiz", {"annotations": "annotations_{split}.json"}),
}


def format_of(name: str, section: Mapping[str, Any]) -> str:
    """Return the format of the files of a dataset, embedded or not.

    Parameters
    ----------
    name : str
    section : mapping
        What the config has under the name.
    """
    given: str = section["format"]
    return EMBEDDED_DATASETS[name].format if given == EMBEDDED else given


def written_datasets() -> list[str]:
    """Return the names of the datasets that are written and not chosen from another one."""
    return [name for name, dataset in EMBEDDED_DATASETS.items() if not dataset.is_chosen]
