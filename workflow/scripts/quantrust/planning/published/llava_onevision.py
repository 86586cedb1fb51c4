"""LLaVA-OneVision, as it is published in the layout of the model library."""

from quantrust.planning.published import PublishedModel

# A space behind the role; within a turn images come first, and every text begins a line.
TEMPLATE = (
    "{% for turn in messages %}<|im_start|>{{ turn['role'] }} "
    "{% for part in turn['content'] if part['type'] == 'image' %}<image>{% endfor %}"
    "{% for part in turn['content'] if part['type'] == 'text' %}{{ '\n' + part['text'] }}{% endfor %}"
    "<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

SIDES = (384, 768, 1152, 1536, 1920, 2304)
"""Of the grids of tiles that pictures are cut into, each side in pixels."""

GRIDS = [[height, width] for height in SIDES for width in SIDES]

MODELS = {
    # The library's conversion script, and the config of the Qwen2 of 7 billion parameters that it is made from: its
    # 152,064 rows and two more are filled up to a multiple of 64. The size of its tokenizer's files is Qwen2's, about.
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": PublishedModel(
        config={
            "architectures": ["LlavaOnevisionForConditionalGeneration"],
            "model_type": "llava_onevision",
            "image_grid_pinpoints": GRIDS,
            "projector_hidden_act": "gelu",
            "tie_word_embeddings": False,
            "torch_dtype": "float16",
            "vision_aspect_ratio": "anyres_max_9",
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "text_config": {
                "model_type": "qwen2",
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "num_attention_heads": 28,
                "num_hidden_layers": 28,
                "num_key_value_heads": 4,
                "vocab_size": 152128,
                "max_position_embeddings": 32768,
                "rms_norm_eps": 1e-06,
                "rope_theta": 1000000.0,
            },
            "vision_config": {
                "model_type": "siglip_vision_model",
                "hidden_size": 1152,
                "image_size": 384,
                "intermediate_size": 4304,
                "num_attention_heads": 16,
                "num_hidden_layers": 26,
                "patch_size": 14,
                "vision_use_head": False,
            },
        },
        preprocessor={
            "do_pad": True,
            "image_grid_pinpoints": GRIDS,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "image_processor_type": "LlavaOnevisionImageProcessor",
            "size": {"height": 384, "width": 384},
        },
        template=TEMPLATE,
        special=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<video>", "<image>"),
        companions=11_500_000,
    ),
}
