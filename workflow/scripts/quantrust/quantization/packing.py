"""Dense packing of 2- to 8-bit codes into bytes.

Bit order: code i of a row occupies bits i * bits up to (i + 1) * bits - 1 of the row's bit stream, least significant
bit first; bit j of the stream is bit j % 8 of byte j // 8. Rows are packed by themselves and begin on a byte: a row
of n codes takes ceil(n * bits / 8) bytes, and the unused high bits of its last byte are zero.

Codes and bytes meet again after 8 / gcd(8, bits) codes. Both directions work on such units, with one shift for each
code of the unit, so that nothing wider than a byte is ever held.
"""

from math import gcd

import torch
from torch import Tensor


def packed_width(count: int, bits: int) -> int:
    """Return the bytes that a row of `count` codes takes."""
    return -(-count * bits // 8)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack codes densely along the last dimension.

    Parameters
    ----------
    codes : Tensor, uint8, shape (..., n)
        Values in [0, 2^bits - 1].
    bits : int
        From 2 to 8.

    Returns
    -------
    Tensor, uint8, shape (..., ceil(n * bits / 8))

    Raises
    ------
    ValueError
        If `codes` is not uint8, `bits` is out of range, or a code needs more than `bits` bits.
    """
    _check_bits(bits)
    if codes.dtype != torch.uint8:
        raise ValueError(f"codes are {codes.dtype}, expected uint8")
    if codes.numel() and int(codes.max()) >= 1 << bits:
        raise ValueError(f"code {int(codes.max())} does not fit into {bits} bits")
    unit_codes, unit_bytes = _unit(bits)
    count = codes.shape[-1]
    padded = torch.nn.functional.pad(codes, (0, -count % unit_codes)).unflatten(-1, (-1, unit_codes))
    packed = codes.new_zeros(*padded.shape[:-1], unit_bytes)
    for index in range(unit_codes):
        byte, shift = divmod(index * bits, 8)
        packed[..., byte] |= padded[..., index] << shift
        if shift + bits > 8:
            packed[..., byte + 1] |= padded[..., index] >> (8 - shift)
    return packed.flatten(-2)[..., : packed_width(count, bits)].contiguous()


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """Return the codes that `pack` packed.

    Parameters
    ----------
    packed : Tensor, uint8, shape (..., ceil(count * bits / 8))
    bits : int
        From 2 to 8.
    count : int
        Codes in a row.

    Returns
    -------
    Tensor, uint8, shape (..., count)

    Raises
    ------
    ValueError
        If the rows of `packed` do not have the width of `count` codes.
    """
    _check_bits(bits)
    width = packed.shape[-1]
    if packed.dtype != torch.uint8 or width != packed_width(count, bits):
        raise ValueError(
            f"packed rows are {packed.dtype} of width {width}, expected uint8 of width {packed_width(count, bits)}"
        )
    if bits == 8:
        return packed.clone()
    unit_codes, unit_bytes = _unit(bits)
    padded = torch.nn.functional.pad(packed, (0, -width % unit_bytes)).unflatten(-1, (-1, unit_bytes))
    codes = packed.new_empty(*padded.shape[:-1], unit_codes)
    mask = (1 << bits) - 1
    for index in range(unit_codes):
        byte, shift = divmod(index * bits, 8)
        code = padded[..., byte] >> shift
        if shift + bits > 8:
            code |= padded[..., byte + 1] << (8 - shift)
        codes[..., index] = code & mask
    return codes.flatten(-2)[..., :count]


def _unit(bits: int) -> tuple[int, int]:
    common = gcd(bits, 8)
    return 8 // common, bits // common


def _check_bits(bits: int) -> None:
    if not 2 <= bits <= 8:
        raise ValueError(f"{bits} bits, expected 2 to 8")
