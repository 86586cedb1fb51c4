"""Packed kernels against float32: dequantize the checkpoint's codes, then multiply.

Tolerances are bounds, element by element, worked out from the roundings that a kernel makes. With u = 2^-8, the largest
relative error of rounding to bfloat16, K input channels, w the weight in float32, w' the weight on the kernel's rounded
grid, and float32 sums of K (or, with two planes, 2 K) products:

    |w' - w|  <= u |code - zero| scale + u |m - zero| scale (1 + u)       one plane, m = 8
    |w' - w|  <= u |code - zero| scale + u^2 |m - zero| scale (1 + u)     two planes, m = 136
    |y' - y|  <= |x| |w' - w|                                     the kernel's grid
               + |x| |w'| u                                       weights rounded to bfloat16; only by blocks and on
                                                                  GPUs, where each plane is rounded: + |x| 16 scale u
               + 17 u |x| |w'|                                    products and up to 16 partial sums in bfloat16; only
                                                                  gemlite
               + 2 K 2^-23 |x| (|high plane| + |low plane|)       sums in float32
               + u |y'|                                           the product, rounded to bfloat16
               + u (|y'| + |bias|)                                adding the bias, rounded again
"""

import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from quantrust.quantization.grid import QuantizedWeight, storage_dtype
from quantrust.quantization.kernels import cpu, cuda
from quantrust.quantization.kernels.cpu import Int4Weight, block_rows
from quantrust.quantization.kernels.cuda import LEAST_CAPABILITY, GemliteWeight, cuda_weight
from quantrust.quantization.kernels.int4_grid import kernel_group_size, planes
from quantrust.quantization.kernels.packed import kernel_weight, use_packed_kernels
from quantrust.quantization.linear import PackedWeight, QuantizedEmbedding, QuantizedLinear
from quantrust.quantization.methods.hqq import quantize as quantize_hqq
from quantrust.quantization.methods.rtn import quantize_rtn

U = 2.0**-8

pytestmark = pytest.mark.skipif(
    block_rows() is None, reason="torch's int4 CPU kernel needs AVX2 or AVX-512, which this processor lacks"
)

NEEDS_GPU = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < LEAST_CAPABILITY,
    reason="needs an NVIDIA GPU of compute capability 8.0 or later, and a torch that is built for CUDA",
)


@pytest.fixture(scope="module")
def untuned():
    """Let gemlite, where it is installed, take one setting for every shape; to choose among all takes minutes."""
    if find_spec("gemlite") is not None:
        import_module("gemlite").set_autotune("default")


def quantized(rows, columns, bits, group_size, method=quantize_hqq):
    generator = torch.Generator().manual_seed(rows * columns + bits)
    # groups of unlike ranges and centres, so that zeros lie far from the middle code too
    weight = torch.randn(rows, columns, generator=generator) * 0.05 + torch.randn(rows, 1, generator=generator) * 0.05
    return method(weight, bits, group_size)


def bounds(quantize: QuantizedWeight, inputs, bias, by_blocks, by_planes=False, by_gemlite=False):
    """Return the float32 product and the largest error that a kernel may make of each element."""
    expand = quantize.group_size
    codes = quantize.codes.double()
    scale, zero = (part.double().repeat_interleave(expand, dim=1) for part in (quantize.scale, quantize.zero))
    weight = (codes - zero) * scale
    two = planes(quantize.bits) == 2
    middle = 136 if two else 8
    step_error = U * weight.abs()
    offset_error = (U**2 if two else U) * (middle - zero).abs() * scale * (1 + U)
    grid_error = step_error + offset_error
    most = weight.abs() + grid_error
    # what is added up before it cancels: each plane is its code's part and its part of the offset
    terms = ((codes - middle).abs() + 2 * (middle - zero).abs() + 16) * scale * (1 + U)
    x = inputs.double().flatten(0, -2).abs()
    rounding = U * most if by_blocks else 0
    rounding += U * 16 * scale * (1 + U) if by_planes and two else 0
    # codes less zeros before they are scaled
    rounding += U * most if by_gemlite else 0
    error = x @ (grid_error + rounding + 2 * weight.shape[1] * 2.0**-23 * terms).T
    expected = inputs.double().flatten(0, -2) @ weight.T
    error = error + U * (expected.abs() + error)
    if bias is not None:
        expected = expected + bias.double()
        error = error + U * (expected.abs() + bias.double().abs() + error)
    return expected.unflatten(0, inputs.shape[:-1]), error.unflatten(0, inputs.shape[:-1])


SHAPES = [
    # rows, columns, group size
    (64, 128, 128),
    (96, 256, 64),  # not a whole number of blocks
    (1, 64, 32),
    (17, 96, 32),
    (64, 896, 896),  # per channel: cut into groups of 128
    (50, 384, 192),  # cut into groups of 64
    (33, 70, 70),  # per channel, and no multiple of what the kernel takes: padded
    (130, 21, 21),
]


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize(("rows", "columns", "group_size"), SHAPES)
@pytest.mark.parametrize("by_blocks", [False, True])
def test_products_are_within_the_rounding_of_the_kernel(bits, rows, columns, group_size, by_blocks, monkeypatch):
    weight = quantized(rows, columns, bits, group_size)
    monkeypatch.setattr(cpu, "MOST_ROWS", dict.fromkeys((1, 2), 0 if by_blocks else 100))
    kernel = kernel_weight(PackedWeight.from_quantized(weight))
    assert isinstance(kernel, Int4Weight)
    for shape in ((1, columns), (2, 3, columns), (37, columns)):
        inputs = torch.randn(shape).bfloat16()
        for bias in (None, torch.randn(rows).bfloat16()):
            outputs = kernel.linear(inputs, bias)
            expected, error = bounds(weight, inputs, bias, by_blocks)
            assert outputs.dtype == torch.bfloat16 and outputs.shape == expected.shape
            assert ((outputs.double() - expected).abs() <= error).all()


@pytest.mark.parametrize(("bits", "steps"), [(4, 1), (8, 16)])
def test_the_bounds_are_far_below_one_step_of_four_bits(bits, steps):
    # or else they could hide wrong codes; the low plane of 8 bits is below them and is held by unit vectors, exactly
    weight = quantized(64, 256, bits, 64)
    inputs = torch.randn(4, 256).bfloat16()
    expected, error = bounds(weight, inputs, None, by_blocks=False)
    wrong = QuantizedWeight(weight.codes ^ steps, weight.scale, weight.zero, bits, 64)
    off, _ = bounds(wrong, inputs, None, by_blocks=False)
    assert ((off - expected).abs() > error).float().mean() > 0.5


def every_code(rows, columns, bits, group_size):
    """A weight with all codes on grids that bfloat16 holds: steps are powers of two and zeros whole numbers.

    Then every product with a unit vector is a whole number below 2^8 times a power of two, and exact.
    """
    generator = torch.Generator().manual_seed(rows * columns + bits)
    codes = torch.stack([torch.randperm(columns, generator=generator) for _ in range(rows)]) % 2**bits
    scale = 2.0 ** -torch.randint(1, 8, (rows, columns // group_size), generator=generator)
    zero = torch.randint(0, 2**bits, scale.shape, generator=generator)
    dtype = storage_dtype(bits)
    return QuantizedWeight(codes.to(torch.uint8), scale.to(dtype), zero.to(dtype), bits, group_size)


def products_with_unit_vectors(weight, by_blocks, monkeypatch):
    monkeypatch.setattr(cpu, "MOST_ROWS", dict.fromkeys((1, 2), 0 if by_blocks else weight.columns))
    return weight.linear(torch.eye(weight.columns, device=weight.codes.device).bfloat16(), None).float().cpu().T


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize(("rows", "columns", "group_size"), SHAPES)
def test_every_code_comes_back(bits, rows, columns, group_size, monkeypatch):
    packed = PackedWeight.from_quantized(every_code(rows, columns, bits, group_size))
    expected = packed.dequantize(torch.float32)
    kernel = kernel_weight(packed)
    assert isinstance(kernel, Int4Weight)
    assert torch.equal(kernel.dequantize(torch.float32), expected)
    for by_blocks in (False, True):
        assert torch.equal(products_with_unit_vectors(kernel, by_blocks, monkeypatch), expected)


@pytest.mark.parametrize("by_blocks", [False, True])
@pytest.mark.parametrize(
    ("bits", "plane", "steps"), [(3, 0, 1), (4, 0, 1), (5, 0, 16), (5, 1, 1), (8, 0, 16), (8, 1, 1)]
)
def test_one_wrong_bit_of_either_plane_shows(bits, plane, steps, by_blocks, monkeypatch):
    packed = PackedWeight.from_quantized(every_code(64, 128, bits, 32))
    kernel = kernel_weight(packed)
    kernel.codes[0, plane * 128 + 5, 3] ^= 1
    change = products_with_unit_vectors(kernel, by_blocks, monkeypatch) - packed.dequantize(torch.float32)
    assert change.nonzero().tolist() == [[3, 5]]
    assert change[3, 5].abs() == steps * packed.scale[3, 0]


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize(("rows", "columns", "group_size"), SHAPES)
def test_the_dequantized_weight_is_the_one_that_the_kernel_multiplies(bits, rows, columns, group_size):
    kernel = kernel_weight(PackedWeight.from_quantized(quantized(rows, columns, bits, group_size)))
    weight = kernel.dequantize(torch.float32)
    # unit vectors: the kernel returns single weights, rounded to bfloat16
    places = torch.randperm(columns)[:20]
    found = kernel.linear(nn.functional.one_hot(places, columns).bfloat16(), None)
    assert (found.float() - weight[:, places].T).abs().le(U * weight[:, places].T.abs() + 1e-7).all()
    few = torch.tensor([rows - 1, 0, rows // 2, 0])
    assert torch.equal(kernel.dequantize(torch.float32, few), weight[few])


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("value", [0.0, 0.3, -0.3, -3e-3])
def test_constant_groups_are_exact(bits, value):
    value = float(torch.tensor(value).bfloat16())
    rows = torch.randn(32, 64) * 0.1
    rows[3] = value
    kernel = kernel_weight(PackedWeight.from_quantized(quantize_rtn(rows, bits, 32)))
    assert kernel.dequantize(torch.float32)[3].eq(value).all()
    assert kernel.linear(torch.eye(64)[:1].bfloat16(), None)[0, 3] == value


def test_empty_batches_give_empty_outputs():
    kernel = kernel_weight(PackedWeight.from_quantized(quantized(64, 64, 4, 32)))
    assert kernel.linear(torch.empty(0, 64, dtype=torch.bfloat16), None).shape == (0, 64)


@pytest.mark.parametrize(
    ("columns", "group_size", "expected"),
    [(128, 128, 128), (3584, 3584, 256), (96, 96, 32), (64, 16, None), (96, 48, None), (70, 70, 32), (512, 512, 256)],
)
def test_the_group_size_that_the_kernel_is_given(columns, group_size, expected):
    assert kernel_group_size(PackedWeight(4, columns, 4, group_size)) == expected


def test_weights_that_no_kernel_takes_stay_as_they_are():
    weight = PackedWeight.from_quantized(quantized(8, 48, 4, 16))
    assert kernel_weight(weight) is weight


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_memory_is_half_a_byte_or_a_byte_and_the_grid(bits):
    kernel = kernel_weight(PackedWeight.from_quantized(quantized(128, 1024, bits, 128)))
    halves = 1 if bits <= 4 else 2
    assert sum(buffer.nbytes for buffer in kernel.buffers()) == halves * (128 * 1024 // 2 + 128 * 1024 // 128 * 4)


class Tied(nn.Module):
    def __init__(self, shared, lone):
        super().__init__()
        self.embedding = QuantizedEmbedding(shared, torch.bfloat16)
        self.other = QuantizedEmbedding(lone, torch.bfloat16)
        self.head = QuantizedLinear(shared, None)


def test_a_shared_weight_moves_once_and_an_embedding_alone_does_not():
    shared = PackedWeight.from_quantized(quantized(100, 64, 4, 32))
    model = Tied(shared, PackedWeight.from_quantized(quantized(10, 64, 4, 32)))
    token_ids = torch.tensor([[3, 99, 3], [0, 64, 65]])
    before = model.embedding(token_ids)
    use_packed_kernels(model)
    assert isinstance(model.head.weight, Int4Weight) and model.embedding.weight is model.head.weight
    assert isinstance(model.other.weight, PackedWeight)
    assert torch.allclose(model.embedding(token_ids).float(), before.float(), atol=0.01, rtol=0)
    assert torch.equal(model.embedding(token_ids), model.head.weight.dequantize(torch.bfloat16)[token_ids])


def test_rows_of_activations_choose_the_kernel(monkeypatch):
    kernel = kernel_weight(PackedWeight.from_quantized(quantized(64, 64, 4, 32)))
    used = []
    for name in ("_by_kernel", "_by_blocks"):
        original = getattr(Int4Weight, name)
        monkeypatch.setattr(Int4Weight, name, lambda *a, n=name, f=original: used.append(n) or f(*a))
    limit = cpu.MOST_ROWS[1]
    for rows in (1, limit, limit + 1):
        kernel.linear(torch.randn(rows, 64).bfloat16(), None)
    assert used == ["_by_kernel", "_by_kernel", "_by_blocks"]


def test_products_of_many_rows_are_the_same_numbers_with_and_without_avx512(monkeypatch):
    kernel = kernel_weight(PackedWeight.from_quantized(quantized(96, 256, 4, 64)))
    inputs = torch.randn(cpu.MOST_ROWS[1] + 1, 256).bfloat16()
    exact = inputs.double() @ kernel.dequantize(torch.bfloat16).double().T
    for has_avx512 in (True, False):
        monkeypatch.setattr(cpu, "_has_avx512", lambda has_avx512=has_avx512: has_avx512)
        outputs = kernel.linear(inputs, None)
        # half a unit in the last place of bfloat16, and the sums of float32
        torch.testing.assert_close(outputs.double(), exact, rtol=2**-8, atol=1e-4)


def run_with(capability, *arguments):
    """Run Python in a process whose torch is told what its processor can do."""
    env = os.environ | {"ATEN_CPU_CAPABILITY": capability, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True)


def test_blocks_of_32_rows_without_avx512():
    chosen = "test_products and (64-896-896-8 or 33-70-70-3)"
    result = run_with("avx2", "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", chosen)
    assert result.returncode == 0 and "4 passed" in result.stdout, result.stdout
    layout = run_with("avx2", "-c", "from quantrust.quantization.kernels.cpu import block_rows; print(block_rows())")
    assert layout.stdout.strip() == "32"


def test_processors_whose_layout_is_unknown_keep_the_reference():
    code = (
        "from quantrust.quantization.kernels.cpu import block_rows\n"
        "from quantrust.quantization.kernels.packed import kernel_weight\n"
        "from quantrust.quantization.linear import PackedWeight\n"
        "weight = PackedWeight(64, 64, 4, 32); print(block_rows(), kernel_weight(weight) is weight)"
    )
    assert run_with("default", "-c", code).stdout.strip() == "None True"


@pytest.mark.gpu
@pytest.mark.usefixtures("untuned")
@NEEDS_GPU
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize(("rows", "columns", "group_size"), SHAPES)
def test_products_on_a_gpu_are_within_the_rounding_of_the_kernel(bits, rows, columns, group_size):
    weight = quantized(rows, columns, bits, group_size)
    kernel = kernel_weight(PackedWeight.from_quantized(weight).cuda())
    assert not isinstance(kernel, PackedWeight)
    by_gemlite = isinstance(kernel, GemliteWeight)
    for count in (0, 1, 37):
        inputs = torch.randn(count, columns).bfloat16()
        expected, error = bounds(weight, inputs, None, True, by_planes=not by_gemlite, by_gemlite=by_gemlite)
        assert ((kernel.linear(inputs.cuda(), None).cpu().double() - expected).abs() <= error).all()


@pytest.mark.gpu
@pytest.mark.usefixtures("untuned")
@NEEDS_GPU
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize(("rows", "columns", "group_size"), SHAPES)
@pytest.mark.parametrize("at_once", [1, 8, 1000])
def test_every_code_comes_back_on_a_gpu(bits, rows, columns, group_size, at_once):
    packed = PackedWeight.from_quantized(every_code(rows, columns, bits, group_size))
    expected = packed.dequantize(torch.float32)
    kernel = kernel_weight(packed.cuda())
    shown = [kernel.linear(units, None) for units in torch.eye(columns, device="cuda").bfloat16().split(at_once)]
    assert torch.equal(torch.cat(shown).float().cpu().T, expected)


def test_a_gpu_gets_the_kernel_that_takes_the_width(monkeypatch):
    # which kernel is chosen needs no GPU, only somebody to ask about one
    monkeypatch.setattr(cuda, "CudaInt4Weight", lambda weight: "torch")
    monkeypatch.setattr(cuda, "GemliteWeight", lambda weight: "gemlite")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    weights = [PackedWeight(512, 64, bits, 32) for bits in (2, 3, 4, 5, 6, 8)]
    for other in ("", "0.5.1", "0.60.0"):
        monkeypatch.setattr(cuda, "_gemlite_version", lambda other=other: other)
        assert [cuda_weight(weight) for weight in weights] == ["torch"] * 6
    monkeypatch.setattr(cuda, "_gemlite_version", lambda: "0.6.1")
    assert [cuda_weight(weight) for weight in weights] == ["gemlite", "torch", "torch", "gemlite", "gemlite", "gemlite"]
    assert cuda_weight(PackedWeight(512, 70, 8, 70)) == "torch"
    assert cuda_weight(PackedWeight(520, 64, 8, 32)) == "gemlite"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert [cuda_weight(weight) for weight in weights] == weights
