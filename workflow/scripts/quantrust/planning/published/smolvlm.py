"""SmolVLM2, as it is published."""

from quantrust.planning.published import PublishedModel

# An image follows the colon at once, a text after a space.
TEMPLATE = (
    "<|im_start|>{% for turn in messages %}{{ turn['role'] | capitalize }}:"
    "{% if turn['content'][0]['type'] != 'image' %} {% endif %}{% for part in turn['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% elif part['type'] == 'image' %}<image>{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)

MODELS = {
    # The tower is SigLIP-SO400M of 384 pixels, the decoder SmolLM2 of 1.7 billion parameters, whose vocabulary it adds
    # to. Others quote 4,493,569,760 bytes in half precision, as the shapes give. The size of its tokenizer's files is
    # SmolLM2's, about.
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": PublishedModel(
        config={
            "architectures": ["SmolVLMForConditionalGeneration"],
            "model_type": "smolvlm",
            "scale_factor": 3,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "text_config": {
                "model_type": "llama",
                "hidden_size": 2048,
                "intermediate_size": 8192,
                "num_attention_heads": 32,
                "num_hidden_layers": 24,
                "num_key_value_heads": 32,
                "vocab_size": 49280,
                "hidden_act": "silu",
                "max_position_embeddings": 8192,
                "rms_norm_eps": 1e-05,
                "rope_theta": 130000.0,
            },
            "vision_config": {
                "model_type": "smolvlm_vision",
                "hidden_size": 1152,
                "image_size": 384,
                "intermediate_size": 4304,
                "num_attention_heads": 16,
                "num_hidden_layers": 27,
                "patch_size": 14,
            },
        },
        preprocessor={
            "do_image_splitting": True,
            "max_image_size": {"longest_edge": 384},
            "size": {"longest_edge": 1536},
            "image_processor_type": "SmolVLMImageProcessor",
        },
        template=TEMPLATE,
        special=(
            *("<|im_end|>", "<|im_start|>", "<global-img>"),
            *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
            *("<fake_token_around_image>", "<end_of_utterance>", "<image>"),
        ),
        companions=3_600_000,
    ),
}
