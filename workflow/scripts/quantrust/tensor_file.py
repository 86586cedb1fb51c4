"""Safetensors files that are written tensor by tensor, and their size before anything is written.

A file is eight bytes with the length of its header, the header, which says where each tensor lies, and the tensors. All
follows from names, shapes and dtypes, so that tensors can be put in their places in any order as they come, and none
needs to be held. The bytes are those of `safetensors.torch.save_file`.
"""

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

# one entry only: the library writes several in no fixed order
METADATA = {"format": "pt"}
ALIGNMENT = 8
"""The header is padded with spaces to a multiple of so many bytes."""

Layout = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and dtype of each tensor by its name."""


def file_bytes(layout: Layout) -> int:
    """Return the size of the file that holds tensors of these names, shapes and dtypes."""
    header, places = _header(layout)
    return len(header) + max((stop for _, stop in places.values()), default=0)


class TensorWriter:
    """Puts tensors in their places in a safetensors file; see `open_tensor_file`."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path, self.layout = path, layout
        self.written: set[str] = set()
        header, self.places = _header(layout)
        self.offset = len(header)
        self.file = open(path, "wb")  # noqa: SIM115 closed by `open_tensor_file`
        self.file.write(header)

    def write(self, name: str, tensor: Tensor) -> None:
        """Write one tensor.

        Parameters
        ----------
        name : str
            In the layout, and not written yet.
        tensor : Tensor
            Of the shape and dtype that the layout says; on any device.

        Raises
        ------
        ValueError
            If the name, the shape or the dtype is another.
        """
        if name in self.written or self.layout.get(name) != (tuple(tensor.shape), tensor.dtype):
            raise ValueError(
                f"{self.path}: {name} {tuple(tensor.shape)} {tensor.dtype} is not what is to be written next; "
                f"the layout says {self.layout.get(name)}"
            )
        # a tensor without dimensions has no bytes to view
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        self.file.seek(self.offset + self.places[name][0])
        self.file.write(content.numpy().data)
        self.written.add(name)

    def finish(self) -> None:
        """Close the file; a tensor that is lacking is a ValueError."""
        if lacking := self.layout.keys() - self.written:
            raise ValueError(f"{self.path}: {len(lacking)} tensors were not written, among them {min(lacking)}")
        self.file.flush()
        os.fsync(self.file.fileno())


@contextmanager
def open_tensor_file(path: str | Path, layout: Layout) -> Iterator[TensorWriter]:
    """Yield a writer of a safetensors file; when the block ends well every tensor must have been written.

    Parameters
    ----------
    path : str or Path
    layout : mapping of str to (tuple of int, torch.dtype)
        Shape and dtype of each tensor by its name.

    Yields
    ------
    TensorWriter

    Raises
    ------
    ValueError
        If a tensor of the layout was not written.
    """
    writer = TensorWriter(Path(path), layout)
    with writer.file:
        yield writer
        writer.finish()


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file whose tensors are all there, with the permissions that any new file gets.

    The library's own `save_file` lets nobody but the owner read what it writes, whatever the umask says.
    """
    layout = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    with open_tensor_file(path, layout) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)


def _header(layout: Layout) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """Return what comes before the tensors, and where each begins and ends after it."""
    # the library itself says in which order it writes, and how it spells dtypes, given tensors without an element
    empty = save({name: torch.empty(0, dtype=dtype) for name, (_, dtype) in layout.items()}, METADATA)
    header = json.loads(empty[8 : 8 + struct.unpack("<Q", empty[:8])[0]])
    places, start = {}, 0
    for name in (key for key in header if key in layout):
        shape, dtype = layout[name]
        places[name] = (start, start := start + math.prod(shape) * dtype.itemsize)
        header[name] |= {"shape": list(shape), "data_offsets": list(places[name])}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return struct.pack("<Q", len(text)) + text, places
