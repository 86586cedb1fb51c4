"""Plans: what each preset selects, and what is said about the rest."""

from dataclasses import replace

import polars as pl
import pytest

from quantrust.errors import QuantrustError
from quantrust.models.loading import load_model
from quantrust.quantization.layer_plan import LAYER_PLAN_SCHEMA, build_layer_plan, describe_layer_plan
from quantrust.quantization.scheme import THIRDS, Selection, parse_scheme, resolve_scheme


@pytest.fixture(scope="module", params=["qwen2_vl", "idefics3"])
def loaded(request, model_folders):
    return load_model(model_folders[request.param])[:2]


def chosen(plan: pl.DataFrame) -> pl.DataFrame:
    return plan.filter(pl.col("bits").is_not_null())


def test_no_preset_takes_the_linears_of_the_language_blocks(loaded):
    family, model = loaded
    plan = build_layer_plan(family, model, parse_scheme("rtn-w3g64"))
    assert plan.schema == LAYER_PLAN_SCHEMA
    assert plan["layer"].to_list() == [layer.name for layer in family.layers(model)]
    taken = chosen(plan)
    assert len(taken) == 3 * 7
    assert set(taken["component"]) == {"language"} and set(taken["bits"]) == {3} and set(taken["group"]) == {64}
    assert set(plan.filter(pl.col("bits").is_null())["reason"]) == {"not selected"}


def test_mixed_takes_everything_but_convolutions_and_position_tables(loaded):
    family, model = loaded
    plan = build_layer_plan(family, model, parse_scheme("rtn-w4g128-mixed"))
    bits = {component: set(group["bits"]) for (component,), group in chosen(plan).group_by("component")}
    assert bits == {"language": {4}, "vision": {8}, "connector": {8}, "embedding": {8}, "head": {8}}
    skipped = plan.filter(pl.col("bits").is_null())
    assert set(skipped["reason"]) <= {"convolution", "not a token embedding"} and len(skipped) in (1, 2)


def test_groups_fall_back_where_they_do_not_divide(loaded):
    family, model = loaded
    plan = build_layer_plan(family, model, parse_scheme("rtn-w4g128"))
    notes = plan.drop_nulls("bits").select("columns", "group", "note").unique().sort("columns")
    assert notes.rows() == [(n, 64, f"group 64: {n} is no multiple of 128") for n in (64, 192)]


def test_only_calibrated_methods_have_absorbers(loaded):
    family, model = loaded
    assert build_layer_plan(family, model, parse_scheme("rtn-w4g64"))["scaled_by"].null_count() == len(
        family.layers(model)
    )
    plan = build_layer_plan(family, model, parse_scheme("awq-w4g64"))
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
    assert len(chosen(build_layer_plan(family, model, parse_scheme("bf16")))) == 0


def test_a_selection_that_matches_nothing_is_an_error(loaded):
    family, model = loaded

    class Blind(type(family)):
        def layers(self, model):
            return [layer for layer in super().layers(model) if layer.component != "language"]

    with pytest.raises(QuantrustError, match=r"language: 4 bits selects no layer of .*the model has no such layer"):
        build_layer_plan(Blind(), model, parse_scheme("rtn-w4g64"))


def table_scheme(*rows, method="rtn", group=64):
    keys = ("component", "bits", "third", "layer_type")
    table = [dict(zip(keys, row, strict=False)) for row in rows]
    return resolve_scheme("custom", {"method": method, "group": group, "symmetric": False, "table": table})


def test_rows_select_thirds_and_layer_types(loaded):
    family, model = loaded
    scheme = table_scheme(
        ("language", 4), ("language", 8, "last"), ("language", 16, "last", "mlp"), ("vision", 3, None, "mlp")
    )
    plan = build_layer_plan(family, model, scheme)
    blocks = plan.filter(component="language").group_by("block", "layer_type").agg("bits", "third").sort("block")
    bits = {(row["block"], row["layer_type"]): set(row["bits"]) for row in blocks.iter_rows(named=True)}
    assert bits == {
        (0, "attention"): {4},
        (0, "mlp"): {4},
        (1, "attention"): {4},
        (1, "mlp"): {4},
        (2, "attention"): {8},
        (2, "mlp"): {None},
    }
    assert plan.filter(component="language", block=1)["third"].unique().to_list() == ["middle"]
    last = plan.filter(component="language", block=2, layer_type="mlp").row(0, named=True)
    assert last["selected_by"] == "language, last third, mlp: 16 bits" and last["reason"] == "left at 16 bits"
    vision = plan.filter(pl.col("component") == "vision", pl.col("bits").is_not_null())
    assert set(vision["layer_type"]) == {"mlp"} and len(vision) == 2 * 2
    assert set(plan.filter(component="head")["reason"]) == {"not selected"}


def test_blocks_fall_into_thirds_as_evenly_as_they_go(loaded):
    family, model = loaded

    class Deep(type(family)):
        def layers(self, model):
            return [layer for layer in super().layers(model) if layer.component == "vision" and layer.block is not None]

    # two blocks: there is no last third
    plan = build_layer_plan(Deep(), model, table_scheme(("vision", 4)))
    assert dict(plan.select("block", "third").unique().iter_rows()) == {0: "first", 1: "middle"}
    with pytest.raises(QuantrustError, match=r"vision, last third: 4 bits selects no layer .* too few blocks"):
        build_layer_plan(Deep(), model, table_scheme(("vision", 4, "last")))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [("language", 4, "first"), ("language", 3)],
            r"scheme custom: language, first third: 4 bits selects no layer .*later rows of the table take all",
        ),
        ([("language", 3), ("language", 16)], r"language: 3 bits selects no layer .*later rows"),
    ],
)
def test_rows_that_touch_nothing_are_an_error(loaded, rows, message):
    with pytest.raises(QuantrustError, match=message):
        build_layer_plan(*loaded, table_scheme(*rows, ("head", 8)))


def test_the_plan_lists_what_uses_the_unscaled_grid(loaded):
    family, model = loaded
    plan = build_layer_plan(family, model, parse_scheme("mbq-w4g32-full"))
    plain = dict(plan.filter(method="rtn").select("layer", "note").iter_rows())
    layers = {name.rpartition(".")[2] for name in plain if ".layers." in name or ".blocks." in name}
    # nothing feeds fc2 linearly; k and v have fewer heads than o
    assert layers == {"o_proj", "fc2"}
    assert all(
        note
        == (
            "unscaled grid: no operation before it can absorb a scale"
            if name not in ("lm_head", family.embedding)
            else "unscaled grid: no scale is searched for it"
        )
        for name, note in plain.items()
    )
    assert {family.embedding, "lm_head"} <= plain.keys()
    assert plan.filter(pl.col("scaled_by").is_not_null(), method="mbq").height == plan.filter(method="mbq").height
    said = describe_layer_plan(plan).splitlines()
    assert "  3 layers, unscaled grid: no operation before it can absorb a scale" in said


def test_gptq_has_a_hessian_for_all_but_lookups(loaded):
    family, model = loaded
    plan = build_layer_plan(family, model, parse_scheme("gptq-w4g32-full"))
    nearest = plan.filter(method="rtn")
    assert nearest["layer"].to_list() == [family.embedding]
    assert nearest["note"].to_list() == ["rounded to nearest: a lookup multiplies nothing, so it has no Hessian"]


def test_tied_head_and_embedding_share_their_codes_or_stay(model_folders):
    family, model = load_model(model_folders["qwen2_vl"])[:2]
    model.lm_head.weight = model.get_submodule(family.embedding).weight
    full = build_layer_plan(family, model, parse_scheme("rtn-w4g64-full"))
    assert full.filter(component="head").select("bits", "shares").rows() == [(4, family.embedding)]
    assert full.filter(component="embedding").select("bits", "shares").rows() == [(4, None)]
    assert full.filter(component="head")["note"].to_list() == [f"tied: takes the codes of {family.embedding}, 4 bits"]
    table = (Selection("language", 4), Selection("embedding", 4))
    embedding_only = replace(parse_scheme("rtn-w4g64"), table=table)
    with pytest.raises(QuantrustError, match="tied to lm_head, which is not selected"):
        build_layer_plan(family, model, embedding_only)


def test_the_description_counts_layers_and_weights(loaded):
    family, model = loaded
    lines = describe_layer_plan(build_layer_plan(family, model, parse_scheme("rtn-w2g64"))).splitlines()
    weights = 3 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 192 * 64)
    assert f"language: 21 of 21 layers, {weights:,} of {weights:,} weights, 2 bits" in lines
    assert any(line.startswith("head: 0 of 1 layers, 0 of ") for line in lines)


def test_thirds_are_of_the_blocks_in_a_list_and_not_of_one_beside_them(model_folders):
    family, model, _ = load_model(model_folders["qwen2_vl"])

    class WithBody(type(family)):
        """Counts the connector's body to the blocks of the language model."""

        connector = replace(family.connector, blocks=())
        language = replace(family.language, blocks=(*family.language.blocks, *family.connector.blocks))

    scheme = parse_scheme("rtn-w4g32")
    plain = build_layer_plan(family, model, scheme)
    assert plain.filter(component="language")["third"].drop_nulls().unique(maintain_order=True).to_list() == list(
        THIRDS
    )
    assert build_layer_plan(WithBody(), model, scheme)["third"].equals(plain["third"], null_equal=True)
