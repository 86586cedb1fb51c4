"""The cheap scale search chooses what the straightforward one of the benchmark chooses."""

import importlib
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest
import torch

from quantrust.models.family import ScaleGroup
from quantrust.quantization import scale_search
from quantrust.quantization.kernels.onednn import FastLinears
from quantrust.quantization.methods.rtn import quantize_rtn
from quantrust.quantization.scale_search import EXPONENTS, Call, SquaredInputs, search_scale

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SHAPE = {"hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """The benchmark and the folder of a tiny model of its."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("bench_quantization")
    stack = importlib.import_module("baselines.stack")
    monkeypatch.setitem(stack.WIDTHS, "tiny", SHAPE)
    monkeypatch.setattr(module, "GROUP_SIZE", 32)
    module.write_model(tmp_path / "model", "tiny", 2)
    return module, stack, tmp_path / "model"


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("method", ["awq", "mbq"])
def test_exponents_and_scales_are_those_of_the_plain_procedure(method, bits, bench, monkeypatch):
    module, stack, folder = bench
    monkeypatch.setattr(module, "BITS", bits)
    monkeypatch.setattr("quantrust.quantization.calibration_samples.BATCH_STATES", 1)
    monkeypatch.setattr(scale_search, "PIECE_TOKENS", 100)
    monkeypatch.setattr(scale_search, "CHUNK_WEIGHTS", 1000)
    fast = module.search_fast(*module.open_model(folder, "tiny", 500), method)
    whole = stack.build_model("tiny", 2)
    plain = module.search_plain(whole, stack.build_samples(whole, "tiny", 500), method)
    assert fast.keys() == plain.keys() and len(plain) == 6
    assert len({choice["exponent"] for choice in plain.values()}) > 1
    for name, choice in plain.items():
        assert fast[name]["exponent"] == choice["exponent"]
        torch.testing.assert_close(fast[name]["scale"], choice["scale"], rtol=1e-6, atol=0)


def one_linear(tokens=40):
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(32, 16, bias=False).requires_grad_(False)
    linear.weight.normal_(generator=generator)
    states = torch.randn(tokens, 32, generator=generator) * torch.rand(32, generator=generator).exp()
    call = Call((states,), {}, linear(states), torch.ones(tokens))
    return ScaleGroup("norm", ("linear",), "linear", "mlp"), linear, states.abs().mean(dim=0), [call]


def rounded(weight):
    return quantize_rtn(weight, 3, 16)


def search(group, linear, magnitude, calls, **options):
    return search_scale(group, linear, {"weight": linear}, magnitude, calls, {"weight": rounded}, 1, **options)


def test_where_the_search_begins_does_not_matter():
    group, linear, magnitude, calls = one_linear()
    found = [search(group, linear, magnitude, calls, first=first) for first in EXPONENTS]
    assert {(choice.exponent, choice.error, choice.unscaled_error) for choice in found} == {
        (found[0].exponent, found[0].error, found[0].unscaled_error)
    }
    assert {(choice.runner_up, choice.runner_up_error) for choice in found} == {
        (found[0].runner_up, found[0].runner_up_error)
    }
    assert 0 < found[0].error < found[0].runner_up_error < found[0].unscaled_error


def test_among_equals_the_smallest_exponent_wins():
    group, linear, magnitude, calls = one_linear()
    # channels of one magnitude have the scale 1 under every exponent
    choice = search(group, linear, torch.full_like(magnitude, 2.0), calls)
    assert (choice.exponent, choice.runner_up) == (0.0, 0.05)
    assert choice.error == choice.runner_up_error == choice.unscaled_error


def test_an_exponent_whose_error_is_not_finite_comes_nowhere():
    group, linear, magnitude, calls = one_linear()

    def quantize(weight):
        quantized = quantize_rtn(weight, 3, 16)
        # every exponent but 0 scales the weight
        plain = torch.equal(weight, linear.weight)
        return quantized if plain else replace(quantized, scale=torch.full_like(quantized.scale, nan))

    choice = search_scale(group, linear, {"weight": linear}, magnitude, calls, {"weight": quantize}, 1)
    assert (choice.exponent, choice.runner_up, choice.runner_up_error) == (0.0, None, None)


def test_a_candidate_that_can_no_longer_come_second_is_given_up(monkeypatch):
    group, linear, magnitude, calls = one_linear()
    # under exponents that the first token's error rules out the second is not looked at
    (call,) = calls
    pieces = [
        Call((call.args[0][rows],), {}, call.output[rows], weights)
        for rows, weights in ((slice(0, 39), torch.ones(39)), (slice(39, 40), torch.full((1,), 1e-3)))
    ]
    runs = []
    linear.register_forward_pre_hook(lambda module, args: runs.append(len(args[0])))
    choice = search(group, linear, magnitude, pieces)
    assert runs.count(39) == len(EXPONENTS)
    # the first two candidates, the plain grid and whatever was among the two best for a while
    assert 3 <= runs.count(1) < len(EXPONENTS) / 2
    assert choice.exponent == search(group, linear, magnitude, calls).exponent


def test_squared_errors_from_sums_over_tokens_are_those_of_the_tokens(monkeypatch):
    # fewer than the channels, so that a sum has several parts
    monkeypatch.setattr(scale_search, "SUMMED_COLUMNS", 12)
    monkeypatch.setattr(scale_search, "PIECE_CHANNELS", 5)
    group, linear, magnitude, (call,) = one_linear(tokens=200)
    (states,), weights = call.args, torch.rand(200, generator=torch.Generator().manual_seed(1))
    summed = SquaredInputs((states * weights[:, None]).T @ states, 200)
    choices = [
        search_scale(group, linear, {"weight": linear}, magnitude, calls, {"weight": rounded}, 2)
        for calls in ([replace(call, weights=weights)], summed)
    ]
    assert choices[0].exponent == choices[1].exponent and choices[0].runner_up == choices[1].runner_up
    for name in ("error", "unscaled_error", "runner_up_error"):
        assert getattr(choices[1], name) == pytest.approx(getattr(choices[0], name), rel=1e-5)


def test_fast_linears_are_linears_with_the_gradient_of_their_inputs():
    generator = torch.Generator().manual_seed(0)
    linear = torch.nn.Linear(48, 24).requires_grad_(False)
    inputs = torch.randn(2, 5, 48, generator=generator)
    upstream = torch.randn(2, 5, 24, generator=generator)
    results = []
    for double in (False, True):
        layer, states = (linear.double(), inputs.double()) if double else (linear, inputs.clone())
        states.requires_grad_()
        if double:
            output = layer(states)
        else:
            with FastLinears():
                output = layer(states)
        output.backward(upstream.to(output.dtype))
        results.append((output.detach().double(), states.grad.double()))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_fast_linears_leave_trained_weights_and_other_dtypes_to_torch():
    trained = torch.nn.Linear(8, 4)
    states = torch.randn(3, 8)
    with FastLinears():
        trained(states).sum().backward()
        assert trained.weight.grad is not None and trained.bias.grad is not None
        half = torch.nn.Linear(8, 4, dtype=torch.bfloat16).requires_grad_(False)
        assert half(states.bfloat16()).dtype == torch.bfloat16
        assert torch.nn.functional.linear(states[:0], half.weight.float()).shape == (0, 4)
