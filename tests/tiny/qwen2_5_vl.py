"""Qwen2.5-VL."""

from tiny import Tiny

TINY = Tiny(
    repository="Qwen/Qwen2.5-VL-7B-Instruct",
    config={
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "vocab_size": 704,
        "bos_token_id": 640,
        "eos_token_id": 642,
        "rope_scaling": {"mrope_section": [2, 3, 3]},
        "vision_config": {
            "depth": 2,
            # the first block attends within windows of two by two tokens, the second to the whole picture
            "fullatt_block_indexes": [1],
            "window_size": 56,
            "hidden_size": 64,
            "intermediate_size": 80,
            "num_heads": 4,
            "out_hidden_size": 64,
        },
    },
    wide={"num_hidden_layers": 2, "vision_config": {"depth": 2, "fullatt_block_indexes": [1]}},
    preprocessor={},
    settings={"max_pixels": 112 * 112},
    wide_settings={"max_pixels": 112 * 112},
    end="<|im_end|>",
    # a token is 28 x 28 pixels: 56 x 84, 112 x 84, 28 x 308 and 196 x 56
    tokens=(6, 12, 11, 14),
    # norm1, values, norm2 and up of a block; the norm before the merger; both norms and up of a decoder block
    folds={"vision": 2 * 4, "connector": 1, "language": 2 * 3},
    refused=("o_proj", "merger.mlp.2"),
    published_name=lambda name: name.replace("model.language_model.", "model.").replace("model.visual.", "visual."),
)
