"""Mistral Small 3.1."""

from tiny import Tiny


def _published_name(name: str) -> str:
    """Return the name from before the library put all parts under `model`."""
    name = name.replace("model.language_model.", "language_model.model.").replace("lm_head", "language_model.lm_head")
    return name.replace("model.vision_tower.", "vision_tower.").replace("model.multi_", "multi_")


TINY = Tiny(
    repository="mistralai/Mistral-Small-3.1-24B-Instruct-2503",
    config={
        "text_config": {
            "head_dim": 16,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "vocab_size": 704,
        },
        "vision_config": {
            "head_dim": 16,
            "hidden_size": 64,
            "intermediate_size": 80,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
        },
    },
    wide={"text_config": {"num_hidden_layers": 2}, "vision_config": {"num_hidden_layers": 2}},
    preprocessor={},
    settings={"size": {"longest_edge": 112}},
    wide_settings={"size": {"longest_edge": 112}},
    end="</s>",
    # a token is 28 x 28 pixels: 56 x 84, 112 x 84, 28 x 112 and 112 x 56
    tokens=(6, 12, 4, 8),
    # both norms, values and up of a block; the merger; both norms and up of a decoder block
    folds={"vision": 2 * 4, "connector": 1, "language": 2 * 3},
    refused=("self_attn.o_proj", "merging_layer", "linear_2"),
    published_name=_published_name,
)
