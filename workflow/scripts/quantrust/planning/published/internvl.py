"""InternVL3, as it is published in the layout of the model library."""

from quantrust.planning.published import PublishedModel

# An image has a line of its own.
TEMPLATE = (
    "{% for turn in messages %}<|im_start|>{{ turn['role'] }}\n"
    "{% if turn['content'] is string %}{{ turn['content'] }}"
    "{% else %}{% for part in turn['content'] %}{% if part['type'] == 'image' %}<IMG_CONTEXT>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

MODELS = {
    # The tower is InternViT-300M, whose config is the library's default but for the biases of its attention, and the
    # decoder Qwen2.5 of 7 billion parameters, as the library's conversion script makes them. Shapes give 7,944,373,760
    # weights, which others count in a model of this config. The size of its tokenizer's files is Qwen2.5's, about.
    "OpenGVLab/InternVL3-8B-hf": PublishedModel(
        config={
            "architectures": ["InternVLForConditionalGeneration"],
            "model_type": "internvl",
            "downsample_ratio": 0.5,
            "image_seq_length": 256,
            "projector_hidden_act": "gelu",
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "default",
            "text_config": {
                "model_type": "qwen2",
                "hidden_size": 3584,
                "intermediate_size": 18944,
                "num_attention_heads": 28,
                "num_hidden_layers": 28,
                "num_key_value_heads": 4,
                "vocab_size": 151674,
                "hidden_act": "silu",
                "max_position_embeddings": 32768,
                "rms_norm_eps": 1e-06,
                "rope_theta": 1000000.0,
            },
            "vision_config": {
                "model_type": "internvl_vision",
                "attention_bias": True,
                "hidden_size": 1024,
                "image_size": [448, 448],
                "intermediate_size": 4096,
                "layer_norm_eps": 1e-06,
                "layer_scale_init_value": 0.1,
                "norm_type": "layer_norm",
                "num_attention_heads": 16,
                "num_hidden_layers": 24,
                "patch_size": [14, 14],
                "use_mean_pooling": True,
                "use_qk_norm": False,
            },
        },
        preprocessor={
            "crop_to_patches": False,
            "min_patches": 1,
            "max_patches": 12,
            "size": {"height": 448, "width": 448},
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
            "image_processor_type": "GotOcr2ImageProcessor",
        },
        template=TEMPLATE,
        special=(
            *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<video>"),
            "<IMG_CONTEXT>",
        ),
        companions=12_000_000,
        tokenizer={
            "extra_special_tokens": {
                "context_image_token": "<IMG_CONTEXT>",
                "end_image_token": "</img>",
                "start_image_token": "<img>",
                "video_token": "<video>",
            }
        },
    ),
}
