"""Scale groups of the decoder block that Qwen2 and Llama share."""

from torch import nn

from quantrust.models.family import ScaleGroup


def decoder_scale_groups(model: nn.Module, block_name: str) -> list[ScaleGroup]:
    """Return the groups of a Llama-like decoder block, as Qwen2 and Llama share it.

    The value projection can absorb a scale for the output projection only where both have the same shape, which
    grouped-query attention rules out (as in the AWQ reference implementation).
    """
    attention, mlp = f"{block_name}.self_attn", f"{block_name}.mlp"
    value, output = model.get_submodule(f"{attention}.v_proj"), model.get_submodule(f"{attention}.o_proj")
    same_shape = (value.in_features, value.out_features) == (output.in_features, output.out_features)
    return [
        ScaleGroup(
            f"{block_name}.input_layernorm",
            (f"{attention}.q_proj", f"{attention}.k_proj", f"{attention}.v_proj"),
            attention,
            "attention",
        ),
        ScaleGroup(
            f"{attention}.v_proj" if same_shape else None, (f"{attention}.o_proj",), f"{attention}.o_proj", "attention"
        ),
        ScaleGroup(f"{block_name}.post_attention_layernorm", (f"{mlp}.gate_proj", f"{mlp}.up_proj"), mlp, "mlp"),
        ScaleGroup(f"{mlp}.up_proj", (f"{mlp}.down_proj",), f"{mlp}.down_proj", "mlp"),
    ]
