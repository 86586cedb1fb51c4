"""Idefics3, as it is published."""

from quantrust.planning.published import PublishedModel

# An image follows the colon at once, a text after a space.
TEMPLATE = (
    "<|begin_of_text|>{% for turn in messages %}{{ turn['role'].capitalize() }}:"
    "{% if turn['content'][0]['type'] != 'image' %} {% endif %}{% for part in turn['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% elif part['type'] == 'image' %}<image>{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)

MODELS = {
    # The defaults of the library's Idefics3Config and image processor, which are this model's, and the config of the
    # Llama 3.1 of 8 billion parameters that it is made from, whose vocabulary it adds three tokens to. The size of its
    # tokenizer's files is Llama's, about. The index of its weights could not be looked up.
    "HuggingFaceM4/Idefics3-8B-Llama3": PublishedModel(
        config={
            "architectures": ["Idefics3ForConditionalGeneration"],
            "model_type": "idefics3",
            "scale_factor": 2,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "text_config": {
                "model_type": "llama",
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_attention_heads": 32,
                "num_hidden_layers": 32,
                "num_key_value_heads": 8,
                "vocab_size": 128259,
                "hidden_act": "silu",
                "max_position_embeddings": 131072,
                "mlp_bias": False,
                "rms_norm_eps": 1e-05,
                "rope_theta": 500000.0,
                "rope_scaling": {
                    "factor": 8.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": 8192,
                    "rope_type": "llama3",
                },
            },
            "vision_config": {
                "model_type": "idefics3",
                "hidden_size": 1152,
                "image_size": 364,
                "intermediate_size": 4304,
                "num_attention_heads": 16,
                "num_hidden_layers": 27,
                "patch_size": 14,
            },
        },
        preprocessor={
            "do_image_splitting": True,
            "max_image_size": {"longest_edge": 364},
            "size": {"longest_edge": 1456},
            "image_processor_type": "Idefics3ImageProcessor",
        },
        template=TEMPLATE,
        special=(
            *("<|reserved_special_token_0|>", "<|begin_of_text|>", "<fake_token_around_image>", "<end_of_utterance>"),
            "<image>",
        ),
        companions=9_500_000,
    ),
}
