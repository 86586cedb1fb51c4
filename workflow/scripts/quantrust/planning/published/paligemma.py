"""PaliGemma, as it is published."""

from quantrust.planning.published import PublishedModel

# No file of the published folder describes it; the library's processor writes it so.
TEMPLATE = (
    "{% for turn in messages %}"
    "{% for part in turn['content'] if part['type'] == 'image' %}<image>{% endfor %}{{ bos_token }}"
    "{% for part in turn['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{{ '\n' }}{% endfor %}"
)

MODELS = {
    # The library's conversion script; the width of its heads is the library's default of GemmaConfig. Shapes give
    # 2,923,466,480 weights, which others quote too. The tokens of places and shapes come before that of the image. The
    # size of its tokenizer's files is Gemma's, about.
    "google/paligemma-3b-mix-224": PublishedModel(
        config={
            "architectures": ["PaliGemmaForConditionalGeneration"],
            "model_type": "paligemma",
            "hidden_size": 2048,
            "projection_dim": 2048,
            "torch_dtype": "bfloat16",
            "text_config": {
                "model_type": "gemma",
                "head_dim": 256,
                "hidden_size": 2048,
                "intermediate_size": 16384,
                "num_attention_heads": 8,
                "num_hidden_layers": 18,
                "num_key_value_heads": 1,
                "vocab_size": 257216,
            },
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 1152,
                "image_size": 224,
                "intermediate_size": 4304,
                "num_attention_heads": 16,
                "num_hidden_layers": 27,
                "patch_size": 14,
                "projection_dim": 2048,
                "vision_use_head": False,
            },
        },
        preprocessor={
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "image_processor_type": "SiglipImageProcessor",
            "image_seq_length": 256,
            "resample": 3,
            "size": {"height": 224, "width": 224},
        },
        template=TEMPLATE,
        special=(
            *("<pad>", "<eos>", "<bos>"),
            *(f"<loc{place:04d}>" for place in range(1024)),
            *(f"<seg{shape:03d}>" for shape in range(128)),
            "<image>",
        ),
        companions=22_000_000,
        tokenizer={"bos_token": "<bos>", "eos_token": "<eos>"},
    ),
}
