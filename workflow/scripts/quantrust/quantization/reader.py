"""What the readers of other libraries' formats share: a layer as a folder stores it, its grid, and 32-bit words.

Nothing that a folder says is taken on trust: shapes follow from the model, dtypes are those of the format, numbers are
finite, and whatever a weight of this project cannot hold is refused by its name.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quantrust.errors import QuantrustError
from quantrust.models.weights import StoredTensor
from quantrust.quantization.grid import QuantizedWeight, storage_dtype
from quantrust.quantization.packing import packed_width, unpack

GRID_DTYPES = ("F16", "BF16", "F32")
"""Of scales, and of zero-points that are floats, as safetensors spells them."""
UNEQUAL = (
    "which a quantized weight of this project cannot hold; quantize it with a group size that divides the input "
    "channels"
)
WORD = "I32"
WORD_BITS = 32
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Grid:
    """The grid of a quantized layer, without its values.

    Attributes
    ----------
    bits : int
        From 2 to 8.
    group_size : int
        Input channels that share a scale; it divides their number.
    dtype : torch.dtype
        In which a checkpoint stores scales and zero-points exactly.
    order : Tensor or None, int32, shape (in,)
        As in `QuantizedWeight`.
    """

    bits: int
    group_size: int
    dtype: torch.dtype
    order: Tensor | None = None


@dataclass(frozen=True)
class StoredLayer:
    """A quantized layer in the folder of another library.

    Attributes
    ----------
    stored_name : str
        In the folder.
    name : str
        In the model.
    rows, columns : int
        Output and input channels, as the model has them.
    parts : mapping of str to StoredTensor
    """

    stored_name: str
    name: str
    rows: int
    columns: int
    parts: Mapping[str, StoredTensor]

    def fault(self, message: str) -> QuantrustError:
        """Return an error that names the layer and one of its files."""
        path = next(iter(self.parts.values())).path
        return QuantrustError(f"{path}: {self.stored_name}: {message}")

    def shape(self, part: str, dtypes: Iterable[str]) -> tuple[int, ...]:
        """Return the shape of a part.

        Raises
        ------
        QuantrustError
            If it is missing or of another dtype.
        """
        if part not in self.parts:
            raise self.fault(f"{part} is missing; get the folder again")
        at = self.parts[part]
        if at.dtype not in dtypes:
            raise self.fault(f"{part} is stored as {at.dtype}, expected {' or '.join(dtypes)}; get the folder again")
        return at.shape

    def rows_of(self, part: str, dtypes: Iterable[str]) -> int:
        """Return the rows of a part.

        Raises
        ------
        QuantrustError
            If it is missing, of another dtype, or no matrix.
        """
        shape = self.shape(part, dtypes)
        if len(shape) != 2:
            raise self.fault(f"{part} has shape {list(shape)}, expected rows and columns; get the folder again")
        return shape[0]

    def require(self, part: str, dtypes: Iterable[str], *shapes: tuple[int, ...]) -> None:
        """Raise if a part is missing, or of none of these dtypes and shapes."""
        if (found := self.shape(part, dtypes)) not in shapes:
            expected = " or ".join(str(list(shape)) for shape in shapes)
            raise self.fault(f"{part} has shape {list(found)}, expected {expected}; get the folder again")

    def read(self, part: str) -> Tensor:
        """Return a part; see `StoredTensor.read`."""
        return self.parts[part].read()

    def group_size(self, groups: int) -> int:
        """Return the input channels of each of so many groups.

        Raises
        ------
        QuantrustError
            If they are not as many in all groups.
        """
        if groups < 1 or self.columns % groups:
            raise self.fault(f"its {self.columns} input channels lie in {groups} groups of different sizes, {UNEQUAL}")
        return self.columns // groups

    def groups_of(self, size: int) -> int:
        """Return how many groups of so many input channels there are.

        Raises
        ------
        QuantrustError
            If the last one would have fewer.
        """
        if self.columns % size:
            raise self.fault(f"groups of {size} do not divide its {self.columns} input channels, {UNEQUAL}")
        return self.columns // size

    def weight(self, codes: Tensor, scale: Tensor, zero: Tensor, grid: Grid) -> QuantizedWeight:
        """Return the layer's weight, given its codes in the order of the input channels."""
        if grid.order is not None:
            codes = codes[:, grid.order.long()]
        scale, zero = (part.to(grid.dtype).contiguous() for part in (scale, zero))
        return QuantizedWeight(codes.contiguous(), scale, zero, grid.bits, grid.group_size, grid.order)


@dataclass(frozen=True)
class Reader:
    """The record that the module of a format ends in.

    Attributes
    ----------
    method : str
        What `quant_method` says of it in a `quantization_config`.
    marker : str
        The part that every quantized layer has.
    parts : frozenset of str
        All that a quantized layer may have beside a bias.
    check : callable
        ``check(config)`` raises a `QuantrustError` that says what of a `quantization_config` cannot be held.
    grid : callable
        ``grid(layer, config)`` checks shapes and dtypes of a `StoredLayer` and returns its `Grid`.
    read : callable
        ``read(layer, config, grid)`` returns its `QuantizedWeight`.
    """

    method: str
    marker: str
    parts: frozenset[str]
    check: Callable[[Config], None]
    grid: Callable[[StoredLayer, Config], Grid]
    read: Callable[[StoredLayer, Config, Grid], QuantizedWeight]


def grid_dtype(layer: StoredLayer, bits: int, parts: Iterable[str]) -> torch.dtype:
    """Return the dtype in which the scales and zero-points of some parts are held exactly."""
    if all(layer.parts[part].dtype == "F16" for part in parts):
        return storage_dtype(bits)
    return torch.float32


def order_of_groups(layer: StoredLayer, group_of: Tensor, group_size: int) -> Tensor | None:
    """Return the order in which groups are runs of input channels.

    Parameters
    ----------
    layer : StoredLayer
        For messages.
    group_of : Tensor, integer, shape (in,)
        The group of each input channel.
    group_size : int

    Returns
    -------
    Tensor or None, int32, shape (in,)
        None where groups are runs as it is.

    Raises
    ------
    QuantrustError
        If a group does not exist or has another number of channels.
    """
    groups = layer.columns // group_size
    group_of = group_of.long()
    if int(group_of.min()) < 0 or int(group_of.max()) >= groups:
        raise layer.fault(
            f"g_idx names groups from {int(group_of.min())} to {int(group_of.max())}, expected 0 to "
            f"{groups - 1}; get the folder again"
        )
    sizes = torch.bincount(group_of, minlength=groups)
    if not (sizes == group_size).all():
        raise layer.fault(
            f"g_idx gives groups of {int(sizes.min())} to {int(sizes.max())} input channels, which a quantized weight "
            f"of this project cannot hold; expected {group_size} in each"
        )
    order = group_of.argsort(stable=True)
    own = torch.arange(layer.columns)
    return None if torch.equal(order, own) else order.to(torch.int32)


def unwords(words: Tensor, bits: int, count: int) -> Tensor:
    """Return the codes of rows of 32-bit words; the inverse of `quantrust.quantization.export_layer.words`.

    Parameters
    ----------
    words : Tensor, int32, shape (rows, at least ceil(count * bits / 32))
    bits : int
        From 2 to 8.
    count : int

    Returns
    -------
    Tensor, uint8, shape (rows, count)
    """
    # the first byte is the low end of a word whatever the machine's own byte order
    octets = (words.unsqueeze(-1) >> torch.arange(0, WORD_BITS, 8, dtype=torch.int32)) & 255
    return unpack(octets.to(torch.uint8).flatten(-2)[..., : packed_width(count, bits)], bits, count)


def words_of(count: int, bits: int) -> int:
    """Return the 32-bit words that hold so many codes."""
    return -(-count * bits // WORD_BITS)


def setting(config: Config, name: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
    """Return a setting of a `quantization_config`, or the default where it is missing or null.

    Raises
    ------
    QuantrustError
        If it is of another kind.
    """
    value = config.get(name)
    if value is None:
        return default
    if not (is_integer(value) if kind is int else isinstance(value, kind)):
        raise QuantrustError(f"quantization_config.{name} is {value!r:.100}; get the folder again")
    return value


def is_integer(value: Any) -> bool:
    """Return whether a value of a config is an integer, which true and false are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def held_bits(bits: Any, allowed: Iterable[int]) -> None:
    """Raise if a format has no layers of so many bits here."""
    if not is_integer(bits) or bits not in allowed:
        raise QuantrustError(f"{bits!r:.50} bits cannot be held; expected {', '.join(map(str, allowed))}")
