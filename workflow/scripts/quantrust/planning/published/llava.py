"""LLaVA 1.5, as it is published."""

from quantrust.planning.published import PublishedModel

# Within a turn images come first, each with a line of its own; every text is followed by a space.
TEMPLATE = (
    "{% for turn in messages %}{% if turn['role'] != 'system' %}{{ turn['role'].upper() }}: {% endif %}"
    "{% for part in turn['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
    "{% for part in turn['content'] if part['type'] == 'text' %}{{ part['text'] }} {% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)

MODELS = {
    # The defaults of the library's LlavaConfig, which are this model's, and the config of the Llama 2 of 7 billion
    # parameters that it is made from. All its weights are the 7,063,427,072 that are published. The last vision block
    # never runs and is left out of checkpoints. The size of its tokenizer's files is Llama 2's, about.
    "llava-hf/llava-1.5-7b-hf": PublishedModel(
        config={
            "architectures": ["LlavaForConditionalGeneration"],
            "model_type": "llava",
            "projector_hidden_act": "gelu",
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "tie_word_embeddings": False,
            "torch_dtype": "float16",
            "text_config": {
                "model_type": "llama",
                "hidden_size": 4096,
                "intermediate_size": 11008,
                "num_attention_heads": 32,
                "num_hidden_layers": 32,
                "num_key_value_heads": 32,
                "vocab_size": 32064,
                "hidden_act": "silu",
                "max_position_embeddings": 4096,
                "rms_norm_eps": 1e-05,
            },
            "vision_config": {
                "model_type": "clip_vision_model",
                "hidden_size": 1024,
                "image_size": 336,
                "intermediate_size": 4096,
                "num_attention_heads": 16,
                "num_hidden_layers": 24,
                "patch_size": 14,
                "projection_dim": 768,
                "vocab_size": 32000,
            },
        },
        preprocessor={
            "crop_size": {"height": 336, "width": 336},
            "do_center_crop": True,
            "size": {"shortest_edge": 336},
            "image_processor_type": "CLIPImageProcessor",
        },
        template=TEMPLATE,
        special=("<pad>", "<s>", "</s>", "<image>"),
        companions=4_200_000,
    ),
}
