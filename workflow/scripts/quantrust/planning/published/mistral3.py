"""Mistral Small 3.1, as it is published in the layout of the model library."""

from quantrust.planning.published import PublishedModel

# The published one puts a long system turn first where there is none; it is left out here.
TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}{% if turn['role'] == 'user' %}[INST]"
    "{% for part in turn['content'] %}{% if part['type'] == 'image' %}[IMG]"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}[/INST]"
    "{% endif %}{% endfor %}"
)

MODELS = {
    # The defaults of the library's Mistral3Config, which are this model's. Shapes give 24,011,361,280 weights, as
    # keras-hub counts them. The size of its tokenizer's files is about that of tokenizer.json alone.
    "mistralai/Mistral-Small-3.1-24B-Instruct-2503": PublishedModel(
        config={
            "architectures": ["Mistral3ForConditionalGeneration"],
            "model_type": "mistral3",
            "multimodal_projector_bias": False,
            "projector_hidden_act": "gelu",
            "spatial_merge_size": 2,
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vision_feature_layer": -1,
            "text_config": {
                "model_type": "mistral",
                "head_dim": 128,
                "hidden_size": 5120,
                "intermediate_size": 32768,
                "num_attention_heads": 32,
                "num_hidden_layers": 40,
                "num_key_value_heads": 8,
                "vocab_size": 131072,
                "max_position_embeddings": 131072,
                "rms_norm_eps": 1e-05,
                "rope_theta": 1000000000.0,
                "sliding_window": None,
            },
            "vision_config": {
                "model_type": "pixtral",
                "hidden_size": 1024,
                "image_size": 1540,
                "intermediate_size": 4096,
                "num_attention_heads": 16,
                "num_hidden_layers": 24,
                "patch_size": 14,
                "head_dim": 64,
                "hidden_act": "gelu",
                "rope_theta": 10000.0,
            },
        },
        preprocessor={
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "image_processor_type": "PixtralImageProcessor",
            "patch_size": 14,
            "size": {"longest_edge": 1540},
        },
        template=TEMPLATE,
        special=("<pad>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG_BREAK]", "[IMG_END]", "[IMG]"),
        companions=17_500_000,
        tokenizer={"bos_token": "<s>", "eos_token": "</s>"},
    ),
}
