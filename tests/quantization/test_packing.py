"""Packing against a reference that moves one bit at a time."""

import pytest
import torch

from quantrust.quantization.packing import pack, packed_width, unpack


def slow_pack(row: list[int], bits: int) -> list[int]:
    stream = [(code >> bit) & 1 for code in row for bit in range(bits)]
    stream += [0] * (-len(stream) % 8)
    return [sum(stream[start + bit] << bit for bit in range(8)) for start in range(0, len(stream), 8)]


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 31, 64, 65])
def test_matches_the_reference_and_comes_back(bits, count):
    generator = torch.Generator().manual_seed(bits * 100 + count)
    codes = torch.randint(0, 2**bits, (3, count), generator=generator).to(torch.uint8)
    packed = pack(codes, bits)
    assert packed.tolist() == [slow_pack(row, bits) for row in codes.tolist()]
    assert packed.shape == (3, packed_width(count, bits))
    assert torch.equal(unpack(packed, bits, count), codes)


def test_bit_order_by_hand():
    # 3 bits: 5 = 101, 3 = 011, 6 = 110, least significant bit first: 10111001 1... -> 0b10011101 = 157, 0b1 = 1
    assert pack(torch.tensor([[5, 3, 6]], dtype=torch.uint8), 3).tolist() == [[0b10011101, 0b1]]


def test_packs_any_leading_shape():
    codes = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4) % 8
    assert torch.equal(unpack(pack(codes, 3), 3, 4), codes)
    assert pack(codes[:0], 3).shape == (0, 3, 2)


def test_a_code_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="code 8 does not fit into 3 bits"):
        pack(torch.tensor([[8]], dtype=torch.uint8), 3)


def test_rows_of_the_wrong_width_are_refused():
    with pytest.raises(ValueError, match="width 3, expected uint8 of width 4"):
        unpack(torch.zeros(2, 3, dtype=torch.uint8), 3, 9)
