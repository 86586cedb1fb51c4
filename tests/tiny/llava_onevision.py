"""LLaVA-OneVision."""

from tiny import Tiny

GRIDS = [[56, 56], [56, 112], [112, 56], [112, 112], [56, 168], [168, 56]]


def _published_name(name: str) -> str:
    """Return the name from before the library put all parts under `model`, and the tower's within `vision_model`."""
    name = name.replace("model.language_model.", "language_model.model.").replace("lm_head", "language_model.lm_head")
    name = name.replace("model.vision_tower.", "vision_tower.vision_model.").replace("model.multi_", "multi_")
    return name.replace("model.image_newline", "image_newline")


TINY = Tiny(
    repository="llava-hf/llava-onevision-qwen2-7b-ov-hf",
    config={
        "image_grid_pinpoints": GRIDS,
        # so few that larger grids are scaled down
        "vision_aspect_ratio": "anyres_max_2",
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
            "image_size": 56,
            "intermediate_size": 80,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
        },
    },
    wide={"text_config": {"num_hidden_layers": 2}, "vision_config": {"num_hidden_layers": 2}},
    preprocessor={"size": {"height": 56, "width": 56}, "image_grid_pinpoints": GRIDS},
    settings={},
    end="<|im_end|>",
    # a tile is 4 x 4 patches, and so is the whole picture, which comes first; grids of 2 x 1, 2 x 2, 3 x 1 and 1 x 3
    # tiles keep, without padding, 6 x 4, 6 x 8, 12 x 2 and 4 x 12 patches; the second and the last are more than two
    # tiles and become 4 x 6 and 3 x 9; each row ends in one more
    tokens=(16 + 6 * 5, 16 + 4 * 7, 16 + 12 * 3, 16 + 3 * 10),
    # both norms and values of a block; both norms and up of a decoder block
    folds={"vision": 2 * 3, "connector": 0, "language": 2 * 3},
    refused=("o_proj", "fc2", "linear_1", "linear_2"),
    published_name=_published_name,
)
