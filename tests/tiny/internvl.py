"""InternVL3."""

from tiny import Tiny


def _published_name(name: str) -> str:
    """Return the name from before the library put all parts under `model`."""
    name = name.replace("model.language_model.", "language_model.model.").replace("lm_head", "language_model.lm_head")
    return name.replace("model.vision_tower.", "vision_tower.").replace("model.multi_", "multi_")


TINY = Tiny(
    repository="OpenGVLab/InternVL3-8B-hf",
    config={
        "text_config": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "vocab_size": 704,
        },
        "vision_config": {
            "hidden_size": 64,
            "image_size": [56, 56],
            "intermediate_size": 80,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
        },
    },
    wide={"text_config": {"num_hidden_layers": 2}, "vision_config": {"num_hidden_layers": 2}},
    preprocessor={"size": {"height": 56, "width": 56}},
    settings={"max_patches": 4},
    wide_settings={"max_patches": 1},
    end="<|im_end|>",
    # a tile of 56 pixels is 4 x 4 patches, 2 x 2 tokens; of at most four tiles the grid that is nearest in shape is
    # taken (1 x 2, 2 x 2, 1 x 4, 3 x 1), and the whole picture is one more
    tokens=(4 * 3, 4 * 5, 4 * 5, 4 * 4),
    # both norms and values of a block; the norm before the projector; both norms and up of a decoder block
    folds={"vision": 2 * 3, "connector": 1, "language": 2 * 3},
    refused=("o_proj", "fc2", "linear_2"),
    published_name=_published_name,
)
