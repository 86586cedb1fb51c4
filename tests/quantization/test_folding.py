"""Folds of scales: each kind of norm keeps the logits, and a norm that no family knows is refused."""

import pytest
import torch
from torch import nn
from transformers import Gemma3ForCausalLM, Gemma3TextConfig
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from quantrust.errors import QuantrustError
from quantrust.models.components import NormKind
from quantrust.models.family import ScaleGroup
from quantrust.models.loading import load_model
from quantrust.quantization.folding import fold_scale
from quantrust.quantization.layer_plan import build_layer_plan
from quantrust.quantization.scheme import parse_scheme

KINDS = [
    (nn.LayerNorm, NormKind.WEIGHT),
    (LlamaRMSNorm, NormKind.WEIGHT),
    (Gemma3RMSNorm, NormKind.ONE_PLUS_WEIGHT),
]


@pytest.mark.parametrize(("norm", "kind"), KINDS)
def test_a_norm_of_each_kind_loses_nothing_and_is_stored_in_bfloat16(norm, kind):
    torch.manual_seed(0)
    model = nn.Sequential(norm(16), nn.Linear(16, 8)).requires_grad_(False)
    model[0].weight.uniform_(0.5, 2)
    # channels that the norm drops, whichever kind it is
    model[0].weight[3], model[0].weight[4] = 0.0, -1.0
    if norm is nn.LayerNorm:
        model[0].bias.normal_()
    inputs = torch.randn(5, 16)
    before = model(inputs)
    scale = torch.rand(16) * 3 + 0.1
    fold_scale(model, ScaleGroup("0", ("1",), "1", "mlp", norm=kind), scale)
    assert torch.equal(model[0].weight, model[0].weight.bfloat16().float())
    torch.testing.assert_close(model(inputs), before, rtol=1e-5, atol=1e-5)


def test_a_norm_of_one_plus_its_weight_gets_the_weight_that_the_quotient_needs():
    model = nn.Sequential(Gemma3RMSNorm(2), nn.Linear(2, 1)).requires_grad_(False)
    model[0].weight.copy_(torch.tensor([0.5, 3.0]))
    fold_scale(model, ScaleGroup("0", ("1",), "1", "mlp", norm=NormKind.ONE_PLUS_WEIGHT), torch.tensor([2.0, 0.5]))
    # (1 + w) / s - 1
    assert model[0].weight.tolist() == [1.5 / 2 - 1, 4 / 0.5 - 1]


def test_a_norm_of_one_plus_its_weight_keeps_a_channel_that_it_makes_very_small():
    """Near -1 bfloat16 has steps of 1 / 256: a multiplier below half of that would become 0, and the channel lost."""
    model = nn.Sequential(Gemma3RMSNorm(2), nn.Linear(2, 1)).requires_grad_(False)
    model[0].weight.copy_(torch.tensor([-0.96875, -1.03125]))
    inputs = torch.tensor([[3.0, -2.0]])
    before = model(inputs)
    fold_scale(model, ScaleGroup("0", ("1",), "1", "mlp", norm=NormKind.ONE_PLUS_WEIGHT), torch.tensor([30.0, 30.0]))
    torch.testing.assert_close(model(inputs), before)


def test_folding_into_norms_of_one_plus_their_weight_keeps_the_logits_of_a_decoder():
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    model = Gemma3ForCausalLM(config).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, Gemma3RMSNorm):
            module.weight.uniform_(-0.5, 1)
    ids = torch.arange(12)[None]
    before = model(input_ids=ids).logits
    for number in range(2):
        block = f"model.layers.{number}"
        for previous, names in (
            ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("pre_feedforward_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            linears = tuple(f"{block}.{name}" for name in names)
            group = ScaleGroup(f"{block}.{previous}", linears, linears[0], "mlp", norm=NormKind.ONE_PLUS_WEIGHT)
            fold_scale(model, group, torch.rand(32) * 3 + 0.1)
    torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=1e-4, atol=1e-4)


class Softened(nn.LayerNorm):
    """A norm that multiplies by something else than its base class does."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return super().forward(states).tanh()


def test_a_norm_that_the_family_does_not_know_is_refused_by_name_and_class():
    model = nn.Sequential(Softened(16), nn.Linear(16, 8)).requires_grad_(False)
    weights = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(QuantrustError, match=r"^0 is a .*\.Softened\. The adapter .* does not say what"):
        fold_scale(model, ScaleGroup("0", ("1",), "1", "mlp"), torch.full((16,), 2.0))
    assert all(map(torch.equal, weights, model.parameters()))


def test_a_plan_that_would_fold_into_an_unknown_norm_is_refused_before_any_work(model_folders):
    family, model, _ = load_model(model_folders["idefics3"])
    block = family.blocks(model, "vision")[1]
    model.set_submodule(f"{block}.layer_norm2", Softened(model.get_submodule(f"{block}.layer_norm2").normalized_shape))
    with pytest.raises(QuantrustError, match=rf"{block}\.layer_norm2 is a .*Softened"):
        build_layer_plan(family, model, parse_scheme("awq-w4g32-full"))
    # where nothing is folded there, it does no harm
    assert build_layer_plan(family, model, parse_scheme("awq-w4g32"))["bits"].drop_nulls().len() > 0
    assert build_layer_plan(family, model, parse_scheme("rtn-w4g32-full"))["bits"].drop_nulls().len() > 0
