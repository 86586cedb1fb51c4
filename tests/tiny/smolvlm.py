"""SmolVLM2."""

from tiny import Tiny

TINY = Tiny(
    repository="HuggingFaceTB/SmolVLM2-2.2B-Instruct",
    config={
        "text_config": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "num_key_value_heads": 4,
            "vocab_size": 704,
        },
        "vision_config": {
            "hidden_size": 64,
            "image_size": 84,
            "intermediate_size": 80,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
        },
    },
    wide={"text_config": {"num_hidden_layers": 2}, "vision_config": {"num_hidden_layers": 2}},
    preprocessor={"max_image_size": {"longest_edge": 84}, "size": {"longest_edge": 336}},
    settings={"size": {"longest_edge": 168}},
    wide_settings={"size": {"longest_edge": 384}},
    end="<end_of_utterance>",
    # a tile of 84 pixels is 6 x 6 patches, 2 x 2 tokens; the long side becomes two tiles, and the whole one more
    tokens=(4 * 5, 4 * 5, 4 * 3, 4 * 3),
    # both norms and values of a block; the last norm; both norms, values and up of a decoder block
    folds={"vision": 2 * 3, "connector": 1, "language": 2 * 4},
    refused=("fc2",),
    nested=True,
)
