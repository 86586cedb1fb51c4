"""The half-quadratic solver against the `hqq` package's."""

import pytest
import torch
from hqq.core.optimize import optimize_weights_proximal

from quantrust.quantization.methods import hqq


def weights(rows: int, columns: int, deviation: float) -> torch.Tensor:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(rows)) * deviation
    weight[:, ::37] *= 6
    return weight


def solver_inputs(weight, bits, group_size):
    top = 2**bits - 1
    groups = weight.reshape(-1, group_size)
    low, high = groups.amin(dim=1, keepdim=True), groups.amax(dim=1, keepdim=True)
    inverse = top / (high - low)
    return groups, inverse, -low * inverse, top


# with the larger weights errors exceed what shrinkage takes to zero, at 2 bits in every step, at 8 bits in none
@pytest.mark.parametrize("deviation", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_solves_to_the_bit_what_the_package_solves(bits, deviation):
    groups, inverse, zero, top = solver_inputs(weights(96, 256, deviation), bits, 64)
    expected = optimize_weights_proximal(tensor=groups, scale=inverse, zero=zero, min_max=[0, top], axis=1)[2]
    assert torch.equal(hqq.solve_zero(groups, inverse, zero, top), expected)
    assert not torch.equal(expected, zero)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_quantize_has_the_packages_zero_points_where_storing_rounds_no_scale(bits):
    weight = weights(96, 256, 0.02)
    groups, _, _, top = solver_inputs(weight, bits, 64)
    # the ends of a group are moved so that its scale is a number of few bits
    low, high = groups.argmin(dim=1, keepdim=True), groups.argmax(dim=1, keepdim=True)
    scales = 2.0 ** torch.ceil(((groups.gather(1, high) - groups.gather(1, low)) / top).log2())
    scaled = groups.scatter(1, high, groups.gather(1, low) + top * scales)
    for chosen in (scaled, groups):
        groups, inverse, zero, _ = solver_inputs(chosen.reshape(96, 256), bits, 64)
        expected = optimize_weights_proximal(tensor=groups, scale=inverse, zero=zero, min_max=[0, top], axis=1)[2]
        found = hqq.quantize(chosen.reshape(96, 256), bits, 64).zero
        assert torch.equal(found, expected.reshape(96, 4).to(found.dtype)) == (chosen is scaled)


def test_shrinkage_leaves_nothing_of_small_errors_only():
    def shrink(error: float) -> float:
        return max(0.0, error - error ** (hqq.LP_NORM - 1) / hqq.BETA)

    assert shrink(0.999 * hqq.LEAST_SHRUNK) == 0.0
    assert shrink(1.001 * hqq.LEAST_SHRUNK) > 0.0


@pytest.mark.parametrize("deviation", [0.02, 1.0])
def test_the_solvers_inputs_are_left_alone(deviation):
    inputs = solver_inputs(weights(8, 64, deviation), 3, 32)
    before = [tensor.clone() for tensor in inputs[:3]]
    hqq.solve_zero(*inputs)
    assert all(torch.equal(one, other) for one, other in zip(inputs, before, strict=False))


def test_chunks_stop_by_themselves():
    weight = weights(2 * hqq.CHUNK_WEIGHTS // 128, 128, 0.02)
    half = len(weight) // 2
    whole = hqq.quantize(weight, 3, 64)
    halves = [hqq.quantize(part, 3, 64) for part in (weight[:half], weight[half:])]
    assert torch.equal(whole.codes, torch.cat([part.codes for part in halves]))
    assert torch.equal(whole.zero, torch.cat([part.zero for part in halves]))
