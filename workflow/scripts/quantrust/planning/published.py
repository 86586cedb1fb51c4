"""Facts of published models, with which a study of them is planned before any of their files are there.

Numbers are those of the files that a model is published with; what stands for its tokenizer here has a token for every
byte, so that prompts are longer in a resource plan than in the study. Shapes give the size of all weights to the byte:
for Qwen2-VL-7B-Instruct it is the 16,582,751,232 bytes that the index of its weights states. The index of
Idefics3-8B-Llama3 could not be looked up.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

TEMPLATES = {
    # A system turn comes first where there is none.
    "qwen2_vl": (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "{% endif %}{% for turn in messages %}<|im_start|>{{ turn['role'] }}\n"
        "{% if turn['content'] is string %}{{ turn['content'] }}"
        "{% else %}{% for part in turn['content'] %}{% if part['type'] == 'image' %}"
        "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}"
        "{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    # An image follows the colon at once, a text after a space.
    "idefics3": (
        "<|begin_of_text|>{% for turn in messages %}{{ turn['role'].capitalize() }}:"
        "{% if turn['content'][0]['type'] != 'image' %} {% endif %}{% for part in turn['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}{% elif part['type'] == 'image' %}<image>{% endif %}"
        "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
    ),
    # Within a turn images come first, each with a line of its own; every text is followed by a space.
    "llava": (
        "{% for turn in messages %}{% if turn['role'] != 'system' %}{{ turn['role'].upper() }}: {% endif %}"
        "{% for part in turn['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
        "{% for part in turn['content'] if part['type'] == 'text' %}{{ part['text'] }} {% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    ),
}


@dataclass(frozen=True)
class PublishedModel:
    """What a model is published as.

    Attributes
    ----------
    config, preprocessor : dict
        Of `config.json` and `preprocessor_config.json` what shapes and pictures depend on.
    template : str
        A chat template that gives the same turns as the published one.
    special : tuple of str
        Special tokens of a prompt; the first one pads, the last one stands for an image.
    companions : int
        Bytes of the files that are not weights, most of them the tokenizer's: about as many.
    """

    config: dict[str, Any]
    preprocessor: dict[str, Any]
    template: str
    special: tuple[str, ...]
    companions: int

    def write_files(self, folder: str | Path) -> None:
        """Write the files that a resource plan reads to a folder that is there."""
        tokenizer = Tokenizer(models.BPE({byte: k for k, byte in enumerate(sorted(_BYTES))}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(list(self.special))
        tokenizer.save(str(Path(folder) / "tokenizer.json"))
        image = {"image_token_id": tokenizer.token_to_id(self.special[-1])}
        for name, content in (
            ("config.json", self.config | image),
            ("preprocessor_config.json", self.preprocessor),
            ("tokenizer_config.json", {"pad_token": self.special[0], "tokenizer_class": "PreTrainedTokenizerFast"}),
        ):
            (Path(folder) / name).write_text(json.dumps(content), encoding="utf-8")
        (Path(folder) / "chat_template.jinja").write_text(self.template, encoding="utf-8")


_BYTES = pre_tokenizers.ByteLevel.alphabet()

PUBLISHED = {
    # Its config.json and preprocessor_config.json; files of 11 MB beside the weights by the listing of its tokenizer.
    "Qwen/Qwen2-VL-7B-Instruct": PublishedModel(
        config={
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "model_type": "qwen2_vl",
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_attention_heads": 28,
            "num_hidden_layers": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "hidden_act": "silu",
            "torch_dtype": "bfloat16",
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-06,
            "rope_theta": 1000000.0,
            "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
            "tie_word_embeddings": False,
            "vision_config": {
                "depth": 32,
                "embed_dim": 1280,
                "mlp_ratio": 4,
                "num_heads": 16,
                "in_chans": 3,
                "hidden_size": 3584,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "spatial_patch_size": 14,
                "temporal_patch_size": 2,
            },
        },
        preprocessor={
            "min_pixels": 3136,
            "max_pixels": 12845056,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_processor_type": "Qwen2VLImageProcessor",
        },
        template=TEMPLATES["qwen2_vl"],
        special=(
            *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"),
            "<|image_pad|>",
        ),
        companions=11_500_000,
    ),
    # The defaults of the library's Idefics3Config and image processor, which are this model's, and the config of the
    # Llama 3.1 of 8 billion parameters that it is made from, whose vocabulary it adds three tokens to. The size of its
    # tokenizer's files is Llama's, about.
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
        template=TEMPLATES["idefics3"],
        special=(
            *("<|reserved_special_token_0|>", "<|begin_of_text|>", "<fake_token_around_image>", "<end_of_utterance>"),
            "<image>",
        ),
        companions=9_500_000,
    ),
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
        template=TEMPLATES["llava"],
        special=("<pad>", "<s>", "</s>", "<image>"),
        companions=4_200_000,
    ),
}
"""By their repository on the hub."""
