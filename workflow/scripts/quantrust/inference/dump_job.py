"""The job of a variant's answers to a dataset, which imports what runs a model only if nobody has made them yet."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from quantrust.artifacts.made_early import LONGEST, make_with_others
from quantrust.inference.dumps import Dump
from quantrust.inference.settings import DumpSettings
from quantrust.tasks.task import load_task

if TYPE_CHECKING:
    from quantrust.inference.pictures_kept import KeptPictures

KEPT_PICTURES = 1 << 29
"""Bytes of preprocessed pictures that are kept for the variants that follow."""


def answer_datasets(
    own: Dump, others: Callable[[], Iterable[Dump]], *, workers: int = 0, longest: float = LONGEST
) -> None:
    """Put the features of a dataset in their place, made early or now, and go on with others of the same model.

    Each file is, byte for byte, what `quantrust.inference.features.dump_features` writes.

    Parameters
    ----------
    own, others, longest
        As `quantrust.artifacts.made_early.make_with_others` takes them.
    workers : int
        As in `dump_features`.

    Raises
    ------
    QuantrustError
        As `dump_features` does, of the own dataset. What is wrong with another one is logged; its own job will say it.
    """

    pictures: dict[str, KeptPictures] = {}

    def make(dump: Dump, path: str | Path) -> None:
        # what runs a model takes seconds to import
        from quantrust.inference.features import dump_features
        from quantrust.inference.pictures_kept import KeptPictures
        from quantrust.models.device_memory import free_device_memory

        free_device_memory()
        left = KEPT_PICTURES - sum(kept.held_inputs for kept in pictures.values())
        dump_features(
            dump.checkpoint,
            dump.questions,
            path,
            DumpSettings.from_config(dump.given["settings"]),
            load_task(dump.given["task"]),
            workers=workers,
            # all variants of a model preprocess a picture alike
            kept=pictures.setdefault(dump.asks(), KeptPictures(inputs=left, encoded=0)),
        )

    make_with_others(own, others, make, longest)
