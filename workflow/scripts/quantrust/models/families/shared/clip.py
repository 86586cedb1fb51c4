"""The block of the vision towers of CLIP and SigLIP."""

from quantrust.models.components import Blocks, GroupRule

LAYER_TYPES = {"self_attn": "attention", "mlp": "mlp"}

GROUPS = (
    GroupRule(
        ".layer_norm1",
        (".self_attn.q_proj", ".self_attn.k_proj", ".self_attn.v_proj"),
        "attention",
        inspected=".self_attn",
    ),
    GroupRule(".self_attn.v_proj", (".self_attn.out_proj",), "attention"),
    GroupRule(".layer_norm2", (".mlp.fc1",), "mlp", inspected=".mlp"),
    # GELU does not pass a scale on
    GroupRule(None, (".mlp.fc2",), "mlp"),
)


def clip_blocks(path: str) -> Blocks:
    """Return the description of the vision blocks in the list with this dotted name."""
    return Blocks(path, LAYER_TYPES, GROUPS)
