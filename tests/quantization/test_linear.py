"""Quantized layers against dequantizing first and using the plain layer."""

import pytest
import torch
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaTextScaledWordEmbedding

from quantrust.errors import QuantrustError
from quantrust.quantization import linear
from quantrust.quantization.linear import PackedWeight, QuantizedEmbedding, QuantizedLinear, replace_layer
from quantrust.quantization.methods.hqq import quantize as quantize_hqq
from quantrust.quantization.methods.rtn import quantize_rtn


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize(("rows", "columns", "group_size"), [(5, 48, 16), (1, 21, 21), (32, 64, 32)])
def test_linear_equals_dequantized_linear(bits, rows, columns, group_size):
    torch.manual_seed(bits)
    weight, bias, inputs = torch.randn(rows, columns), torch.randn(rows), torch.randn(2, 3, columns)
    quantized = quantize_hqq(weight, bits, group_size)
    layer = QuantizedLinear(PackedWeight.from_quantized(quantized), bias)
    assert torch.equal(layer(inputs), nn.functional.linear(inputs, quantized.dequantize(), bias))


def test_linear_computes_in_the_dtype_of_its_input():
    quantized = quantize_rtn(torch.randn(8, 32), 4, 16)
    layer = QuantizedLinear(PackedWeight.from_quantized(quantized), None)
    inputs = torch.randn(2, 32, dtype=torch.bfloat16)
    assert torch.equal(layer(inputs), nn.functional.linear(inputs, quantized.dequantize(torch.bfloat16)))


@pytest.mark.parametrize("spare", [0, -1])
def test_only_a_model_within_the_limit_keeps_its_weights_dequantized(spare, monkeypatch):
    torch.manual_seed(1)
    first, second = (PackedWeight.from_quantized(quantize_rtn(torch.randn(32, 32), 2, 16)) for _ in range(2))
    # a weight that two layers hold counts once
    layers = [QuantizedLinear(weight, torch.randn(32)) for weight in (first, second, first)]
    model, inputs, read = nn.Sequential(*layers), torch.randn(5, 32), []
    expected, dequantize = model(inputs), PackedWeight.dequantize
    monkeypatch.setattr(linear, "KEPT_BYTES", 2 * 4 * 32 * 32 + spare)
    monkeypatch.setattr(PackedWeight, "dequantize", lambda self, dtype: read.append(self) or dequantize(self, dtype))
    linear.keep_small_weights(model, torch.float32)
    assert torch.equal(model(inputs), expected) and torch.equal(model(inputs), expected)
    assert read == ([first, second] if spare == 0 else 2 * [first, second, first])
    assert len(model.state_dict()) == 12


def test_a_weight_that_is_kept_is_not_taken_for_one_of_another_dtype():
    quantized = quantize_rtn(torch.randn(8, 32), 4, 16)
    layer = QuantizedLinear(PackedWeight.from_quantized(quantized), None)
    linear.keep_small_weights(layer, torch.float32)
    for dtype in (torch.float32, torch.bfloat16, torch.float32):
        inputs = torch.randn(2, 32, dtype=dtype)
        assert torch.equal(layer(inputs), nn.functional.linear(inputs, quantized.dequantize(dtype)))


def test_embedding_equals_dequantized_embedding():
    quantized = quantize_rtn(torch.randn(10, 24), 3, 24)
    layer = QuantizedEmbedding(PackedWeight.from_quantized(quantized), torch.float32)
    token_ids = torch.tensor([[3, 3, 9], [0, 7, 3]])
    assert torch.equal(layer(token_ids), nn.functional.embedding(token_ids, quantized.dequantize()))


def test_replacing_keeps_the_bias_and_the_name():
    model = nn.Sequential(nn.Embedding(10, 16), nn.Linear(16, 4))
    bias = model[1].bias.detach().clone()
    for name in ("0", "1"):
        weight = PackedWeight.from_quantized(quantize_rtn(model.get_submodule(name).weight.detach(), 8, 16))
        replace_layer(model, name, weight, torch.float32)
    assert sorted(model.state_dict()) == [
        *("0.weight.codes", "0.weight.scale", "0.weight.zero"),
        *("1.bias", "1.weight.codes", "1.weight.scale", "1.weight.zero"),
    ]
    assert torch.equal(model[1].bias, bias)
    assert model(torch.tensor([1, 2])).shape == (2, 4)


class ScaledEmbedding(nn.Embedding):
    """As some families multiply their token embedding."""

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        return super().forward(token_ids) * 8


def test_a_layer_that_computes_more_than_its_kind_is_not_replaced():
    model = nn.ModuleDict({"words": ScaledEmbedding(8, 32)})
    weight = PackedWeight(8, 32, bits=4, group_size=32)
    with pytest.raises(QuantrustError, match=r"^words is a .*ScaledEmbedding, which computes more than Embedding does"):
        replace_layer(model, "words", weight, torch.float32)
    assert isinstance(model["words"], ScaledEmbedding)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_embedding_that_multiplies_what_it_looks_up_still_does(dtype):
    """As Gemma does, in the dtype of the model: the factor is rounded to it."""
    original = GemmaTextScaledWordEmbedding(8, 32, 0, embed_scale=32**0.5).to(dtype)
    model = nn.ModuleDict({"words": original})
    quantized = quantize_rtn(original.weight.detach().float(), 8, 32)
    replace_layer(model, "words", PackedWeight.from_quantized(quantized), dtype, "embed_scale")
    original.weight = nn.Parameter(quantized.dequantize().to(dtype), requires_grad=False)
    token_ids = torch.tensor([[3, 1], [7, 3]])
    assert torch.equal(model["words"](token_ids), original(token_ids))
    assert sorted(model.state_dict()) == ["words.weight.codes", "words.weight.scale", "words.weight.zero"]
