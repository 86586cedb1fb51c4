"""Activations between the blocks of a model: in host memory as far as a budget goes, then in files.

What is put in is gone when nothing refers to it any more; a file is deleted with it. Tensors come back as they were, on
the device that the model runs on.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quantrust.disk import FULL
from quantrust.errors import QuantrustError


class ActivationStore:
    """Holds tensors that are not in use.

    Parameters
    ----------
    folder : Path or None
        For the files; made when the first is written, and left to whoever gave it. None keeps all in memory. A file
        that the disk has no room for is a `QuantrustError`.
    budget : int
        Bytes of host memory; without a folder it does not count.
    device : str or torch.device
        Where tensors are wanted.
    """

    def __init__(self, folder: Path | None = None, budget: int = 0, device: str | torch.device = "cpu") -> None:
        self.folder, self.budget, self.device = folder, budget, device
        self.held = 0
        self.spilled = 0
        self._numbers = count()

    def put(self, tensor: Tensor) -> "Stored":
        """Take a tensor, which must not be changed afterwards."""
        return Stored(self, tensor)

    def put_all(self, value: Any, known: dict[int, "Stored"] | None = None) -> Any:
        """Return tuples, lists, dicts and dataclasses with every tensor in them put in; other values stay as they are.

        Parameters
        ----------
        value : object
        known : dict of int to Stored, or None
            By the `id` of tensors that are in already and are not to be put in again; those put in are added.
        """
        known = {} if known is None else known

        def take(tensor: Any) -> Any:
            if not isinstance(tensor, Tensor):
                return tensor
            if id(tensor) not in known:
                known[id(tensor)] = self.put(tensor)
            return known[id(tensor)]

        return _map(value, take)

    def _reserve(self, size: int) -> Path | None:
        """Return a file for so many bytes, or None where memory has room for them."""
        if self.folder is None or self.held + size <= self.budget:
            self.held += size
            return None
        self.spilled += size
        return self.folder / f"{next(self._numbers)}"

    def _release(self, size: int, path: Path | None) -> None:
        if path is None:
            self.held -= size
        else:
            path.unlink(missing_ok=True)


class Stored:
    """A tensor in a store."""

    def __init__(self, store: ActivationStore, tensor: Tensor) -> None:
        self.store, self.shape, self.dtype, self.size = store, tensor.shape, tensor.dtype, tensor.nbytes
        self.path = store._reserve(self.size)
        self.tensor = None
        if self.path is None:
            self.tensor = tensor.detach().cpu()
        else:
            with _writing(self.path, self.size):
                self.path.write_bytes(_bytes_of(tensor))

    def get(self) -> Tensor:
        """Return the tensor, on the store's device."""
        if self.tensor is not None:
            return self.tensor.to(self.store.device)
        tensor = torch.empty(self.shape, dtype=self.dtype)
        with open(self.path, "rb") as file:
            file.readinto(_bytes_of(tensor))
        return tensor.to(self.store.device)

    def rows(self, start: int, stop: int) -> "StoredRows":
        """Return the rows of a matrix from `start` to `stop` as a tensor in the store."""
        return StoredRows(self, start, stop)

    def __del__(self) -> None:
        self.store._release(self.size, self.path)


class StoredRows:
    """Consecutive rows of a matrix in a store."""

    def __init__(self, stored: Stored, start: int, stop: int) -> None:
        self.stored, self.start, self.stop = stored, start, stop

    def get(self) -> Tensor:
        """Return them, on the store's device."""
        stored = self.stored
        if stored.tensor is not None:
            return stored.tensor[self.start : self.stop].to(stored.store.device)
        tensor = torch.empty(self.stop - self.start, *stored.shape[1:], dtype=stored.dtype)
        with open(stored.path, "rb") as file:
            file.seek(self.start * (stored.size // stored.shape[0]))
            file.readinto(_bytes_of(tensor))
        return tensor.to(stored.store.device)


def fetch(value: Any, known: dict[int, Stored] | None = None) -> Any:
    """Return tuples, lists, dicts and dataclasses with every stored tensor in them fetched; others stay as they are.

    Parameters
    ----------
    value : object
    known : dict of int to Stored, or None
        Filled with what is fetched, by the `id` of the tensors, as `ActivationStore.put_all` takes it.
    """

    def give(stored: Any) -> Any:
        if not isinstance(stored, Stored | StoredRows):
            return stored
        tensor = stored.get()
        if known is not None and isinstance(stored, Stored):
            known[id(tensor)] = stored
        return tensor

    return _map(value, give)


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return tuples, lists, dicts and dataclasses with what is in them changed."""
    if isinstance(value, tuple | list):
        return type(value)(_map(item, change) for item in value)
    if isinstance(value, dict):
        return {key: _map(item, change) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _map(getattr(value, field.name), change) for field in fields(value)})
    return change(value)


@contextmanager
def _writing(path: Path, size: int) -> Iterator[None]:
    """Make the folder of a file that is written in this context; say it when the disk has no room for it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise QuantrustError(
            f"{path}: no room on the disk for {size:,} bytes of activations ({error.strerror}); make room, move the "
            "study to another disk, or calibrate on fewer samples (calibration.samples) or smaller pictures"
        ) from error


def _bytes_of(tensor: Tensor) -> memoryview:
    """Return the memory of a tensor on the CPU, a copy's where it is laid out otherwise or lies elsewhere."""
    return memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
