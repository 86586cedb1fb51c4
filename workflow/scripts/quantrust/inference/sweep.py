"""Making many variants of one model in one process: a model's cells of a grid, one after another.

Libraries are imported once. A method that reads no data quantizes a layer once for all schemes that give it the same
bits. Pictures are preprocessed once, and pass the vision tower once for all variants that see alike.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterable

from quantrust.artifacts.folders import artifact_folder
from quantrust.artifacts.made_early import LONGEST, go_on, locked
from quantrust.inference.cells import FEATURES, Cell, write_cell
from quantrust.inference.features import dump_features
from quantrust.inference.pictures_kept import KeptPictures
from quantrust.inference.settings import DumpSettings
from quantrust.models.device_memory import free_device_memory
from quantrust.quantization.checkpoint import read_record
from quantrust.quantization.layer_writer import KeptWork
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.scheme import resolve_scheme
from quantrust.tasks.task import load_task

_log = logging.getLogger(__name__)


def make_cells(
    own: Cell,
    others: Callable[[], Iterable[Cell]],
    *,
    workers: int = 0,
    activation_bytes: int | None = None,
    longest: float = LONGEST,
) -> None:
    """Make a cell, and go on with others of the same model and questions that nobody has made or is making.

    What is made waits in the cell's folder `made`. Its features are, byte for byte, those that
    `quantrust.inference.features.dump_features` writes of the checkpoint that
    `quantrust.quantization.quantize.quantize_model` writes.

    Parameters
    ----------
    own : Cell
        It is made in the end, whatever becomes of the others.
    others : callable
        Returns further cells, those first that see as this one does.
    workers : int
        As in `dump_features`.
    activation_bytes : int or None
        As in `quantize_model`.
    longest : float
        Seconds after which no further cell is begun.

    Raises
    ------
    QuantrustError
        If the own cell cannot be made. What is wrong with another one is logged; the job of that cell will say it.
    """
    until = time.monotonic() + longest
    maker = _Maker(workers, activation_bytes)
    with locked(own.made, wait=False) as held:
        if held:
            maker.make(own)
    go_on(others, maker.make, until)
    if not held:
        # by now another job may have made it, or given up
        with locked(own.made, wait=True):
            maker.make(own)


class _Maker:
    """Makes cells of one model and keeps what the next ones can use."""

    def __init__(self, workers: int, activation_bytes: int | None) -> None:
        self.workers, self.activation_bytes = workers, activation_bytes
        self.kept: dict[str, tuple[KeptWork, KeptPictures]] = {}

    def make(self, cell: Cell) -> None:
        """Make a cell, unless it is there."""
        key = cell.key()
        if cell.is_there(key):
            return
        _log.info("%s", cell.scheme)
        given = cell.given
        layers, pictures = self.kept.setdefault(cell.reads(), (KeptWork(), KeptPictures()))
        free_device_memory()
        with artifact_folder(cell.made) as folder:
            checkpoint = folder / "checkpoint"
            quantize_model(
                cell.model,
                resolve_scheme(cell.scheme, given["table"]),
                cell.calibration,
                checkpoint,
                given["device"],
                self.activation_bytes,
                layers,
            )
            dump_features(
                checkpoint,
                cell.questions,
                folder / FEATURES,
                DumpSettings.from_config(given["settings"]),
                load_task(given["task"]),
                workers=self.workers,
                kept=pictures,
                dequantize_once=True,
            )
            write_cell(folder, key, read_record(checkpoint))
            shutil.rmtree(checkpoint)
