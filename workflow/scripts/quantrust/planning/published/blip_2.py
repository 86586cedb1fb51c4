"""BLIP-2 with OPT-2.7B, as it is published."""

from quantrust.planning.published import PublishedModel

# No file of the published folder describes it; the library's processor writes it so.
TEMPLATE = (
    "{% for turn in messages %}"
    "{% for part in turn['content'] if part['type'] == 'image' %}<image>{% endfor %}{{ '</s>' }}"
    "{% for part in turn['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endfor %}"
)

MODELS = {
    # Its config.json as others quote it, and for what that leaves out the defaults of the library's Blip2Config, which
    # are this model's. All its weights are the 3,744,761,856 that the component study counts. Its answers end with the
    # end of a line, token 50118. The size of its tokenizer's files is OPT's, about.
    "Salesforce/blip2-opt-2.7b": PublishedModel(
        config={
            "architectures": ["Blip2ForConditionalGeneration"],
            "model_type": "blip-2",
            "image_text_hidden_size": 256,
            "image_token_index": 50265,
            "num_query_tokens": 32,
            "torch_dtype": "float32",
            "use_decoder_only_language_model": True,
            "qformer_config": {
                "model_type": "blip_2_qformer",
                "cross_attention_frequency": 2,
                "encoder_hidden_size": 1408,
                "hidden_size": 768,
                "intermediate_size": 3072,
                "num_attention_heads": 12,
                "num_hidden_layers": 12,
            },
            "text_config": {
                "model_type": "opt",
                "eos_token_id": 50118,
                "ffn_dim": 10240,
                "hidden_size": 2560,
                "max_position_embeddings": 2048,
                "num_attention_heads": 32,
                "num_hidden_layers": 32,
                "vocab_size": 50304,
                "word_embed_proj_dim": 2560,
            },
            "vision_config": {
                "model_type": "blip_2_vision_model",
                "hidden_size": 1408,
                "image_size": 224,
                "intermediate_size": 6144,
                "num_attention_heads": 16,
                "num_hidden_layers": 39,
                "patch_size": 14,
                "qkv_bias": True,
            },
        },
        preprocessor={
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "image_processor_type": "BlipImageProcessor",
            "processor_class": "Blip2Processor",
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"height": 224, "width": 224},
        },
        template=TEMPLATE,
        special=("<pad>", "</s>", "<image>"),
        companions=3_600_000,
        tokenizer={"bos_token": "</s>", "eos_token": "</s>"},
    ),
}
