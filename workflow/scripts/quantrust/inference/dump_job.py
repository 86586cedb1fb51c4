"""The job of a variant's answers to a dataset, which imports what runs a model only if nobody has made them yet."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from quantrust.artifacts.folders import artifact_folder
from quantrust.inference.dumps import Dump, take
from quantrust.inference.made_early import FEATURES, LONGEST, describe, go_on, locked, waits
from quantrust.inference.settings import DumpSettings
from quantrust.tasks.task import load_task


def answer_datasets(
    own: Dump, others: Callable[[], Iterable[Dump]], *, workers: int = 0, longest: float = LONGEST
) -> None:
    """Put the features of a dataset in their place, made early or now, and go on with others of the same variant.

    Each file is, byte for byte, what `quantrust.inference.features.dump_features` writes.

    Parameters
    ----------
    own : Dump
    others : callable
        Returns those of other datasets that the run asks the same variant, and that nobody has made yet. It is called
        once the own one is made.
    workers : int
        As in `dump_features`.
    longest : float
        Seconds after which no further dataset is begun.

    Raises
    ------
    QuantrustError
        As `dump_features` does, of the own dataset. What is wrong with another one is logged; its own job will say it.
    """
    until = time.monotonic() + longest
    # another job may be making them
    with locked(own.made, wait=True):
        if take(own, own.key()):
            return
        _dump(own, own.features, workers)
    go_on(others(), lambda other: _make_early(other, workers), until)


def _make_early(dump: Dump, workers: int) -> None:
    # its own job may have ended since this one looked
    if dump.is_there():
        return
    key = dump.key()
    if waits(dump.made, key):
        return
    with artifact_folder(dump.made) as folder:
        _dump(dump, folder / FEATURES, workers)
        describe(folder, key)


def _dump(dump: Dump, path: str | Path, workers: int) -> None:
    # what runs a model takes seconds to import
    from quantrust.inference.features import dump_features

    dump_features(
        dump.checkpoint,
        dump.questions,
        path,
        DumpSettings.from_config(dump.given["settings"]),
        load_task(dump.given["task"]),
        workers=workers,
    )
