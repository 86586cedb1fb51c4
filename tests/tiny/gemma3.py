"""Gemma 3."""

from tiny import Tiny


def _published_name(name: str) -> str:
    """Return the name from before the library put all parts under `model`, and the tower's within `vision_model`."""
    name = name.replace("model.language_model.", "language_model.model.")
    return name.replace("model.vision_tower.", "vision_tower.vision_model.").replace("model.multi_", "multi_")


TINY = Tiny(
    repository="google/gemma-3-4b-it",
    config={
        "mm_tokens_per_image": 16,
        "text_config": {
            "head_dim": 16,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "query_pre_attn_scalar": 16,
            # narrower than the tokens of an image; the first block has it, and the second sees everything
            "sliding_window": 12,
            "sliding_window_pattern": 2,
            "vocab_size": 704,
        },
        "vision_config": {
            "hidden_size": 64,
            "image_size": 112,
            "intermediate_size": 80,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
        },
    },
    wide={
        "text_config": {"num_hidden_layers": 2, "sliding_window_pattern": 2},
        "vision_config": {"num_hidden_layers": 2},
    },
    preprocessor={"size": {"height": 112, "width": 112}},
    settings={},
    end="<end_of_turn>",
    # every picture is one square
    tokens=(16,) * 4,
    # both norms and values of a block; the norms before attention and MLP, and up, of a decoder block
    folds={"vision": 2 * 3, "connector": 0, "language": 2 * 3},
    refused=("o_proj", "fc2"),
    published_name=_published_name,
)
