"""Qwen3-VL."""

from tiny import Tiny

TINY = Tiny(
    repository="Qwen/Qwen3-VL-8B-Instruct",
    config={
        "text_config": {
            "head_dim": 16,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_attention_heads": 4,
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "rope_scaling": {"mrope_section": [2, 3, 3]},
            "vocab_size": 704,
        },
        "vision_config": {
            "deepstack_visual_indexes": [0, 1],
            "depth": 3,
            "hidden_size": 64,
            "intermediate_size": 80,
            "num_heads": 4,
            "num_position_embeddings": 64,
            "out_hidden_size": 64,
        },
    },
    wide={
        "text_config": {"num_hidden_layers": 2},
        "vision_config": {"depth": 2, "deepstack_visual_indexes": [0]},
    },
    preprocessor={"size": {"shortest_edge": 4096}},
    settings={"size": {"longest_edge": 128 * 128}},
    wide_settings={"size": {"shortest_edge": 4096, "longest_edge": 128 * 128}},
    end="<|im_end|>",
    # a token is 32 x 32 pixels: 64 x 96, 128 x 96, 32 x 288 and 224 x 64
    tokens=(6, 12, 9, 14),
    # norm1, values and norm2 of a block; the norms of three mergers; both norms and up of a decoder block
    folds={"vision": 3 * 3, "connector": 3, "language": 3 * 3},
    refused=("o_proj", "linear_fc2"),
)
