"""Plans: what each preset selects, and what is said about the rest."""

from dataclasses import replace

import polars as pl
import pytest

from quantrust.errors import QuantrustError
from quantrust.models.family import LayerRef
from quantrust.models.loading import load_model
from quantrust.quantization.plan import PLAN_SCHEMA, build_plan, describe_plan
from quantrust.quantization.scheme import parse_scheme


@pytest.fixture(scope="module", params=["qwen2_vl", "idefics3"])
def loaded(request, model_folders):
    return load_model(model_folders[request.param])[:2]


def chosen(plan: pl.DataFrame) -> pl.DataFrame:
    return plan.filter(pl.col("bits").is_not_null())


def test_no_preset_takes_the_linears_of_the_language_blocks(loaded):
    family, model = loaded
    plan = build_plan(family, model, parse_scheme("rtn-w3g64"))
    assert plan.schema == PLAN_SCHEMA
    assert plan["layer"].to_list() == [layer.name for layer in family.layers(model)]
    taken = chosen(plan)
    assert len(taken) == 3 * 7
    assert set(taken["component"]) == {"language"} and set(taken["bits"]) == {3} and set(taken["group"]) == {64}
    assert set(plan.filter(pl.col("bits").is_null())["reason"]) == {"component not selected"}


def test_mixed_takes_everything_but_convolutions_and_position_tables(loaded):
    family, model = loaded
    plan = build_plan(family, model, parse_scheme("rtn-w4g128-mixed"))
    bits = {component: set(group["bits"]) for (component,), group in chosen(plan).group_by("component")}
    assert bits == {"language": {4}, "vision": {8}, "connector": {8}, "embedding": {8}, "head": {8}}
    skipped = plan.filter(pl.col("bits").is_null())
    assert set(skipped["reason"]) <= {"convolution", "not a token embedding"} and len(skipped) in (1, 2)


def test_groups_fall_back_where_they_do_not_divide(loaded):
    family, model = loaded
    plan = build_plan(family, model, parse_scheme("rtn-w4g128"))
    assert dict(plan.drop_nulls("bits").select("columns", "group").unique().iter_rows()) == {64: 64, 192: 64}


def test_only_calibrated_methods_have_absorbers(loaded):
    family, model = loaded
    assert build_plan(family, model, parse_scheme("rtn-w4g64"))["scaled_by"].null_count() == len(family.layers(model))
    plan = build_plan(family, model, parse_scheme("awq-w4g64"))
    prefix = family.blocks(model, "language")[1]
    absorbers = dict(plan.filter(pl.col("layer").str.starts_with(prefix)).select("layer", "scaled_by").iter_rows())
    assert absorbers == {
        f"{prefix}.self_attn.q_proj": f"{prefix}.input_layernorm",
        f"{prefix}.self_attn.k_proj": f"{prefix}.input_layernorm",
        f"{prefix}.self_attn.v_proj": f"{prefix}.input_layernorm",
        f"{prefix}.self_attn.o_proj": None,  # grouped-query attention
        f"{prefix}.mlp.gate_proj": f"{prefix}.post_attention_layernorm",
        f"{prefix}.mlp.up_proj": f"{prefix}.post_attention_layernorm",
        f"{prefix}.mlp.down_proj": f"{prefix}.mlp.up_proj",
    }


def test_bf16_plans_nothing(loaded):
    family, model = loaded
    assert len(chosen(build_plan(family, model, parse_scheme("bf16")))) == 0


def test_a_selection_that_matches_nothing_is_an_error(loaded):
    family, model = loaded

    class Renamed(type(family)):
        def layers(self, model):
            return [
                LayerRef(layer.name, "decoder" if layer.component == "language" else layer.component, *rest)
                for layer in super().layers(model)
                for rest in [(layer.block, layer.layer_type, layer.kind)]
            ]

    with pytest.raises(QuantrustError, match="4 bits for language select no layer"):
        build_plan(Renamed(), model, parse_scheme("rtn-w4g64"))


def test_tied_head_and_embedding_share_their_codes_or_stay(model_folders):
    family, model = load_model(model_folders["qwen2_vl"])[:2]
    model.lm_head.weight = model.get_submodule(family.embedding).weight
    full = build_plan(family, model, parse_scheme("rtn-w4g64-full"))
    assert full.filter(component="head").select("bits", "shares").rows() == [(4, family.embedding)]
    assert full.filter(component="embedding").select("bits", "shares").rows() == [(4, None)]
    embedding_only = replace(parse_scheme("rtn-w4g64"), bits=(("language", 4), ("embedding", 4)))
    with pytest.raises(QuantrustError, match="tied to lm_head, which is not selected"):
        build_plan(family, model, embedding_only)


def test_the_description_counts_layers_and_weights(loaded):
    family, model = loaded
    lines = describe_plan(build_plan(family, model, parse_scheme("rtn-w2g64"))).splitlines()
    weights = 3 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 192 * 64)
    assert f"language: 21 of 21 layers, {weights:,} of {weights:,} weights, 2 bits" in lines
    assert any(line.startswith("head: 0 of 1 layers, 0 of ") for line in lines)
