"""The grid, round to nearest and half-quadratic quantization."""

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.utils import calculate_qparams

from quantrust.errors import QuantrustError
from quantrust.quantization import grid
from quantrust.quantization.grid import effective_group_size, encode, relative_change, storage_dtype
from quantrust.quantization.methods.hqq import quantize as quantize_hqq
from quantrust.quantization.methods.rtn import quantize_rtn

ALL_BITS = [2, 3, 4, 5, 6, 8]


def gaussian(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.05


def with_outlier_columns(rows: int, columns: int) -> torch.Tensor:
    weight = gaussian(rows, columns)
    weight[:, ::37] *= 6
    return weight


def slow_rtn(weight: torch.Tensor, bits: int, group_size: int, symmetric: bool):
    """Codes, scales, zeros and values by plain loops over groups."""
    dtype = storage_dtype(bits)
    codes, values = torch.zeros_like(weight, dtype=torch.uint8), torch.zeros_like(weight)
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], group_size):
            group = weight[row, start : start + group_size]
            if symmetric:
                scale = (2 * group.abs().max() / (2**bits - 1)).to(dtype).float()
                zero = float(2 ** (bits - 1))
            else:
                scale = ((group.max() - group.min()) / (2**bits - 1)).to(dtype).float()
                zero = float(min(max(torch.round(-group.min() / scale), 0), 2**bits - 1))
            for offset, value in enumerate(group):
                code = min(max(int(torch.round(value / scale + zero)), 0), 2**bits - 1)
                codes[row, start + offset] = code
                values[row, start + offset] = (code - zero) * scale
    return codes, values


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", ALL_BITS)
def test_rtn_matches_plain_loops(bits, symmetric):
    weight = gaussian(3, 48)
    quantized = quantize_rtn(weight, bits, 16, symmetric)
    codes, values = slow_rtn(weight, bits, 16, symmetric)
    assert torch.equal(quantized.codes, codes)
    assert torch.equal(quantized.dequantize(), values)
    assert quantized.scale.dtype == quantized.zero.dtype == storage_dtype(bits)
    assert quantized.scale.shape == quantized.zero.shape == (3, 3)


def test_rtn_by_hand():
    # range 3 over 3 steps: scale 1, zero = round(0.9) = 1, codes round(w + 1)
    weight = torch.tensor([[-0.9, 0.2, 0.9, 2.1]])
    quantized = quantize_rtn(weight, 2, 4)
    assert quantized.codes.tolist() == [[0, 1, 2, 3]]
    assert quantized.scale.tolist() == [[1.0]] and quantized.zero.tolist() == [[1.0]]
    assert quantized.dequantize().tolist() == [[-1.0, 0.0, 1.0, 2.0]]


def test_symmetric_rtn_by_hand():
    # largest 3.5 over 2^2 - 0.5: scale 1, codes round(w + 4) from 0 to 7; 7.5 is beyond the last code
    weight = torch.tensor([[3.5, -3.4, 2.9, -1.2, 0.4, 1.3]])
    quantized = quantize_rtn(weight, 3, 6, symmetric=True)
    assert quantized.codes.tolist() == [[7, 1, 7, 3, 4, 5]]
    assert quantized.scale.tolist() == [[1.0]] and quantized.zero.tolist() == [[4.0]]
    assert quantized.dequantize().tolist() == [[3.0, -3.0, 3.0, -1.0, 0.0, 1.0]]


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", ALL_BITS)
def test_the_grid_is_that_of_the_compressed_tensors_library(bits, symmetric):
    weight = gaussian(8, 96, seed=bits)
    weight[0] = weight[0].abs()
    weight[1] = -weight[1].abs()
    groups = weight.unflatten(1, (-1, 32))
    arguments = QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy="group", group_size=32)
    scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), arguments)
    quantized = quantize_rtn(weight, bits, 32, symmetric)
    torch.testing.assert_close(quantized.scale.float(), scale, rtol=1e-6 if bits == 8 else 2**-11, atol=0)
    # its codes are signed; a rounded scale moves a zero that lies near the middle between two codes
    differing = quantized.zero.float() - zero.float() - 2 ** (bits - 1)
    assert differing.abs().max() <= (0 if symmetric or bits == 8 else 1) and (differing == 0).float().mean() > 0.9


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", ALL_BITS)
def test_rtn_is_off_by_at_most_half_a_scale(bits, symmetric):
    weight = gaussian(16, 128, seed=bits)
    quantized = quantize_rtn(weight, bits, 32, symmetric)
    error = (quantized.dequantize() - weight).abs().unflatten(1, (-1, 32)).amax(-1)
    # a scale that storing rounds down leaves the ends of the range short by 2^bits - 1 times its rounding
    slack = 2**bits * (2**-23 if bits == 8 else 2**-11)
    assert (error <= quantized.scale.float() * (0.5 + slack)).all()


def test_rtn_covers_groups_of_one_sign():
    weight = torch.tensor([[0.5, 0.6, 0.7, 0.8], [-0.8, -0.7, -0.6, -0.5]])
    quantized = quantize_rtn(weight, 4, 4)
    assert ((quantized.dequantize() - weight).abs() <= 0.8 / 15 / 2 * 1.01).all()


def test_quantizing_a_dequantized_weight_changes_nothing():
    for bits in ALL_BITS:
        once = quantize_rtn(gaussian(8, 64), bits, 16).dequantize()
        twice = encode(once, *_grid(gaussian(8, 64), bits), bits, 16).dequantize()
        assert torch.equal(once, twice)


def _grid(weight, bits):
    quantized = quantize_rtn(weight, bits, 16)
    return quantized.scale, quantized.zero


@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize(
    "quantize",
    [quantize_rtn, quantize_hqq, lambda w, b, g: quantize_rtn(w, b, g, symmetric=True)],
    ids=["rtn", "hqq", "symmetric"],
)
def test_constant_and_zero_groups_are_exact(quantize, bits):
    weight = gaussian(4, 64).bfloat16().float()
    weight[0] = 0.0
    weight[1, :32] = 0.0123291015625  # a bfloat16 number
    weight[2, 32:] = -3.0
    restored = quantize(weight, bits, 32).dequantize()
    assert torch.equal(restored[0], weight[0])
    assert torch.equal(restored[1, :32], weight[1, :32])
    assert torch.equal(restored[2, 32:], weight[2, 32:])


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
@pytest.mark.parametrize("quantize", [quantize_rtn, quantize_hqq])
def test_small_constants_are_exact_too(quantize, bits):
    """Below 2^-14 float16 scales lose bits."""
    values = torch.tensor([1e-6, -1e-8, 3e-5, -5e-12]).bfloat16().float()
    weight = values[:, None].expand(4, 32).contiguous()
    assert torch.equal(quantize(weight, bits, 32).dequantize(), weight)
    smallest = torch.full((1, 32), 1e-30)
    assert (quantize(smallest, bits, 32).dequantize() - smallest).abs().max() < 2e-15


@pytest.mark.parametrize("quantize", [quantize_rtn, quantize_hqq])
def test_groups_never_straddle_rows(quantize):
    weight = with_outlier_columns(6, 64)
    alone = [quantize(weight[row : row + 1].clone(), 4, 32).scale for row in range(6)]
    assert torch.equal(quantize(weight, 4, 32).scale, torch.cat(alone))


@pytest.mark.parametrize("bits", [3, 4])
def test_hqq_beats_rtn_where_columns_stick_out(bits):
    weight = with_outlier_columns(64, 256)

    def error(quantized):
        return float((quantized.dequantize() - weight).abs().mean() / weight.abs().mean())

    hqq, rtn = quantize_hqq(weight, bits, 64), quantize_rtn(weight, bits, 64)
    assert error(hqq) < 0.97 * error(rtn)
    rounded = encode(weight, hqq.scale, hqq.zero.round(), bits, 64)
    assert error(hqq) < 0.97 * error(rounded)


def test_hqq_survives_groups_far_from_zero():
    weight = 0.5 + 1e-6 * gaussian(2, 32)
    assert ((quantize_hqq(weight, 4, 32).dequantize() - weight).abs() < 5e-4).all()


def test_hqq_is_deterministic():
    weight = with_outlier_columns(16, 64)
    first, second = quantize_hqq(weight, 3, 32), quantize_hqq(weight.clone(), 3, 32)
    assert torch.equal(first.codes, second.codes) and torch.equal(first.zero, second.zero)


@pytest.mark.parametrize("quantize", [quantize_rtn, quantize_hqq])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_damaged_weights_are_refused(quantize, bad):
    weight = gaussian(2, 32)
    weight[1, 3] = bad
    with pytest.raises(QuantrustError, match="NaN or infinite"):
        quantize(weight, 4, 16)


@pytest.mark.parametrize("size", [1e-37, 1.0, 1e30])
def test_the_change_of_weights_of_any_size_is_measured(size, monkeypatch):
    monkeypatch.setattr(grid, "MEASURED_WEIGHTS", 3)
    weight = size * torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])
    found = size * torch.tensor([[3.0, 0.5], [0.0, 4.0], [1.2, 0.0]])
    assert relative_change(found, weight) == pytest.approx(0.26, rel=1e-6)  # 1.3 of 5
    assert relative_change(weight, weight) == relative_change(0 * weight, 0 * weight) == 0.0
    assert relative_change(found, 0 * weight) == float("inf")


def test_a_scale_that_overflows_is_refused():
    with pytest.raises(QuantrustError, match="scales can hold"):
        quantize_rtn(torch.tensor([[-1e7, 1e7]]), 4, 2)


@pytest.mark.parametrize(
    ("in_features", "requested", "expected"),
    [
        (4304, 128, 16),
        (192, 64, 64),
        (192, 128, 64),
        (96, 128, 32),
        (96, 64, 32),
        (50, 64, 50),
        (96, None, 96),
        (64, 16, 16),
    ],
)
def test_group_size_falls_back(in_features, requested, expected):
    assert effective_group_size(in_features, requested) == expected
