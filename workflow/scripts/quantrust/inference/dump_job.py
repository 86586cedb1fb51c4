"""The job of a variant's answers to a dataset, which imports what runs a model only if nobody has made them yet."""

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from quantrust.artifacts.folders import artifact_folder
from quantrust.errors import QuantrustError
from quantrust.inference.dumps import Dump, take
from quantrust.inference.made_early import FEATURES, LONGEST, describe, locked, waits
from quantrust.inference.settings import DumpSettings
from quantrust.tasks.task import load_task

_log = logging.getLogger(__name__)


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
    begun = time.monotonic()
    # another job may be making them
    with locked(own.made, wait=True):
        if take(own, own.key()):
            return
        _dump(own, own.features, workers)
    for other in others():
        if time.monotonic() - begun > longest:
            break
        with locked(other.made, wait=False) as held:
            if held:
                try:
                    _make_early(other, workers)
                except QuantrustError as error:
                    _log.warning("%s is left to its own job: %s", other.features, error)


def _make_early(dump: Dump, workers: int) -> None:
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
