"""The decoder block of Llama, which Qwen2 shares."""

from quantrust.models.components import Blocks, GroupRule

LAYER_TYPES = {"self_attn": "attention", "mlp": "mlp"}

GROUPS = (
    GroupRule(
        ".input_layernorm",
        (".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj"),
        "attention",
        inspected=".self_attn",
    ),
    GroupRule(".self_attn.v_proj", (".self_attn.o_proj",), "attention"),
    GroupRule(".post_attention_layernorm", (".mlp.gate_proj", ".mlp.up_proj"), "mlp", inspected=".mlp"),
    GroupRule(".mlp.up_proj", (".mlp.down_proj",), "mlp"),
)


def llama_blocks(path: str) -> Blocks:
    """Return the description of the decoder blocks in the list with this dotted name."""
    return Blocks(path, LAYER_TYPES, GROUPS)
