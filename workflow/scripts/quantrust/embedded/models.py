"""The embedded models: genuine architectures, small enough to train and quantize on a laptop.

They are deep and narrow, because narrow layers leave quantization no redundancy to hide in. Folders have the published
layout (config, safetensors, tokenizer, processor, chat template) and are loaded by `quantrust.models.loading` like any
other.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast

from quantrust.data.formats.scene_captions import INSTRUCTION
from quantrust.files import read_object
from quantrust.models.loading import load_family, quiet_library
from quantrust.models.model_config import CONFIG, config_of_weights

IMAGE_SIZE = 64
PATCH = 8
VOCABULARY = 512
OPT_POSITIONS = 256
"""Tokens of the longest text that an OPT decoder reads: it learns a state for every position."""
TEXT_POSITIONS = 96
"""Tokens of the longest text that a Q-Former reads beside its queries. The longest caption seen has 80."""
CHAT_TEMPLATES = {
    "qwen2_vl": (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
        "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "idefics3": (
        "{% for message in messages %}{{ message['role'] | capitalize }}:"
        "{% if message['content'] is string %} {{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}"
        "{% endif %}{% endfor %}{% endif %}<end_of_utterance>\n{% endfor %}"
        "{% if add_generation_prompt %}Assistant:{% endif %}"
    ),
    "llava": (
        "{% for message in messages %}{{ message['role'] | upper }}: "
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}"
        "{% endif %}{% endfor %}{% endif %} {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    ),
}
SPECIAL_TOKENS = {
    "qwen2_vl": (
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ),
    "idefics3": ("<|pad|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>"),
    "llava": ("<pad>", "<s>", "</s>", "<image>"),
    "blip_2": ("<pad>", "</s>", "<image>"),
    "blip_2_retrieval": ("[PAD]", "[CLS]", "[SEP]"),
}
"""The first one pads."""
END_TOKENS = {
    "qwen2_vl": "<|im_end|>",
    "idefics3": "<end_of_utterance>",
    "llava": "</s>",
    "blip_2": "</s>",
    "blip_2_retrieval": "[SEP]",
}


@dataclass(frozen=True)
class EmbeddedSpec:
    """Sizes of an embedded model, the language model's and then the vision tower's, and how it is asked.

    `patch` is the side of a patch in pixels. `queries` and `qformer_layers` are those of a Q-Former, where the family
    has one; it is as wide as the language model and has a query for each patch. `channels` are those in which images
    and texts are compared, where the family compares them. `prompt` is the user's text around a question, and
    `caption_prompt` what is asked where a caption is wanted.
    """

    family: str
    hidden: int = 64
    mlp: int = 192
    layers: int = 16
    heads: int = 4
    kv_heads: int = 2
    vision_hidden: int = 128
    vision_layers: int = 3
    vision_heads: int = 4
    patch: int = PATCH
    queries: int = 0
    qformer_layers: int = 0
    channels: int = 0
    prompt: str = "{question}"
    caption_prompt: str = INSTRUCTION


SPECS = {
    "qwen2-vl-tiny": EmbeddedSpec("qwen2_vl"),
    "idefics3-tiny": EmbeddedSpec("idefics3"),
    # A patch is a cell of a scene. As in the published model, the last vision block never runs.
    "llava-tiny": EmbeddedSpec("llava", layers=12, kv_heads=4, vision_layers=5, patch=2 * PATCH),
    # A patch is a cell of a scene, and there are as many queries as cells.
    "blip2-tiny": EmbeddedSpec(
        "blip_2",
        mlp=256,
        layers=12,
        kv_heads=4,
        vision_layers=4,
        patch=2 * PATCH,
        queries=16,
        qformer_layers=3,
        prompt="Question: {question} Short answer:",
    ),
    # Has the vision tower and the queries of blip2-tiny, and no language model.
    "blip2-itm-tiny": EmbeddedSpec(
        "blip_2_retrieval", vision_layers=4, patch=2 * PATCH, queries=16, qformer_layers=3, channels=64
    ),
    # Answers the candidates of the language shift, so that the questions kept are hard for a model of another make.
    "adversary": EmbeddedSpec("idefics3", hidden=64, mlp=128, layers=4),
}


def train_tokenizer(corpus: Iterable[str], family: str) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer of `VOCABULARY` tokens that keeps every digit a token of its own."""
    special = list(SPECIAL_TOKENS[family])
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=special[0],
        eos_token=END_TOKENS[family],
        additional_special_tokens=special[1:],
        padding_side="left",
    )


def build_model(spec: EmbeddedSpec, tokenizer: PreTrainedTokenizerFast, seed: int) -> nn.Module:
    """Return a randomly initialised float32 model of `spec`.

    Parameters
    ----------
    spec : EmbeddedSpec
    tokenizer : PreTrainedTokenizerFast
        Of the same family; gives the vocabulary size and the special tokens' ids.
    seed : int
        Seed of the initial weights.
    """
    torch.manual_seed(seed)
    model_class = load_family(spec.family).model_class
    # Each class of configs has parts of its own, which its type does not show.
    config_class: Any = model_class.config_class
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": spec.hidden,
        "intermediate_size": spec.mlp,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": 0.02,
    }
    rope = {"rope_type": "default", "rope_theta": 10000.0}
    half = spec.hidden // spec.heads // 2
    if spec.family == "qwen2_vl":
        # Temporal, height and width share the rotary channels, as 16, 24, 24 of 64 do at full size.
        section = [half // 4, half - half // 4 - half * 3 // 8, half * 3 // 8]
        config = config_class(
            text_config={**text, "rope_parameters": {**rope, "mrope_section": section}},
            vision_config={
                "depth": spec.vision_layers,
                "embed_dim": spec.vision_hidden,
                "hidden_size": spec.hidden,
                "num_heads": spec.vision_heads,
                "mlp_ratio": 2,
                "patch_size": PATCH,
                "temporal_patch_size": 2,
                "spatial_merge_size": 2,
            },
            image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
            video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
            vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
            vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        )
    elif spec.family == "llava":
        config = config_class(
            text_config={"model_type": "llama", **text, "rope_parameters": rope},
            vision_config={
                "model_type": "clip_vision_model",
                "hidden_size": spec.vision_hidden,
                "intermediate_size": 2 * spec.vision_hidden,
                "num_hidden_layers": spec.vision_layers,
                "num_attention_heads": spec.vision_heads,
                "image_size": IMAGE_SIZE,
                "patch_size": spec.patch,
                "projection_dim": spec.hidden,
            },
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            image_seq_length=(IMAGE_SIZE // spec.patch) ** 2,
            pad_token_id=tokenizer.pad_token_id,
        )
    elif spec.family == "blip_2":
        config = config_class(
            text_config={
                "model_type": "opt",
                "vocab_size": len(tokenizer),
                "hidden_size": spec.hidden,
                "word_embed_proj_dim": spec.hidden,
                "ffn_dim": spec.mlp,
                "num_hidden_layers": spec.layers,
                "num_attention_heads": spec.heads,
                "max_position_embeddings": OPT_POSITIONS,
                "dropout": 0.0,
                "attention_dropout": 0.0,
                "init_std": 0.02,
                "pad_token_id": tokenizer.pad_token_id,
                "bos_token_id": tokenizer.eos_token_id,
                "eos_token_id": tokenizer("\n", add_special_tokens=False).input_ids[0],
            },
            vision_config=_blip_2_vision(spec),
            qformer_config=_qformer(spec, tokenizer),
            num_query_tokens=spec.queries,
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        )
    elif spec.family == "blip_2_retrieval":
        config = config_class(
            vision_config=_blip_2_vision(spec),
            qformer_config={
                **_qformer(spec, tokenizer),
                "use_qformer_text_input": True,
                "max_position_embeddings": TEXT_POSITIONS,
                "pad_token_id": tokenizer.pad_token_id,
            },
            num_query_tokens=spec.queries,
            image_text_hidden_size=spec.channels,
            image_token_index=None,
        )
    else:
        config = config_class(
            text_config={"model_type": "llama", **text, "rope_parameters": rope},
            vision_config={
                "hidden_size": spec.vision_hidden,
                "intermediate_size": 2 * spec.vision_hidden,
                "num_hidden_layers": spec.vision_layers,
                "num_attention_heads": spec.vision_heads,
                "image_size": IMAGE_SIZE,
                "patch_size": PATCH,
            },
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            pad_token_id=tokenizer.pad_token_id,
            scale_factor=2,
        )
    model: Any = model_class(config)
    if spec.queries:
        _give_each_query_a_patch(model)
    return model.eval()


@torch.no_grad()
def _give_each_query_a_patch(model: Any) -> None:
    """Draw the weights of a Q-Former anew, so that each query looks at a patch of its own and passes it on.

    The library makes all queries equal and the weights behind them small. Such queries read the same of all patches
    alike, and training takes long to part them. Here a patch's position is large enough to be told from others, a query
    is the projection of a patch's position, and cross-attention compares the two by the same projection.
    """
    positions = model.get_submodule("vision_model.embeddings").position_embedding
    nn.init.normal_(positions, std=0.5)
    blocks = [module for name, module in model.named_modules() if name.endswith(".crossattention")]
    projection = nn.init.orthogonal_(torch.empty_like(blocks[0].attention.key.weight))
    model.query_tokens[0] = positions[0, 1:] @ projection.T
    for block in blocks:
        nn.init.eye_(block.attention.query.weight)
        block.attention.key.weight.copy_(projection)
        nn.init.orthogonal_(block.attention.value.weight)
        nn.init.orthogonal_(block.output.dense.weight)


def _blip_2_vision(spec: EmbeddedSpec) -> dict[str, Any]:
    return {
        "hidden_size": spec.vision_hidden,
        "intermediate_size": 2 * spec.vision_hidden,
        "num_hidden_layers": spec.vision_layers,
        "num_attention_heads": spec.vision_heads,
        "image_size": IMAGE_SIZE,
        "patch_size": spec.patch,
        "initializer_range": 0.02,
    }


def _qformer(spec: EmbeddedSpec, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": spec.hidden,
        "encoder_hidden_size": spec.vision_hidden,
        "intermediate_size": 2 * spec.hidden,
        "num_hidden_layers": spec.qformer_layers,
        "num_attention_heads": spec.heads,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def save_model_folder(
    model: nn.Module, tokenizer: PreTrainedTokenizerFast, family: str, folder: str | Path, dtype: torch.dtype
) -> None:
    """Write a model folder in the published layout; the weights are rounded to `dtype`."""
    folder = Path(folder)
    with quiet_library():
        model.to(dtype).save_pretrained(folder)
    # The version of the library that wrote the config says nothing about the model, and would change its bytes.
    for name in (CONFIG, "generation_config.json"):
        if (path := folder / name).exists():
            content = read_object(path)
            content.pop("transformers_version", None)
            if name == CONFIG:
                content = config_of_weights(content, dtype)
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)
    if family in CHAT_TEMPLATES:
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATES[family], encoding="utf-8")
    of_blip_2: dict[str, Any] = {
        "image_processor_type": "BlipImageProcessor",
        "processor_class": "Blip2Processor",
        "size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
    }
    image_processor = {
        "qwen2_vl": {
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2VLProcessor",
            "patch_size": PATCH,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "min_pixels": IMAGE_SIZE * IMAGE_SIZE,
            "max_pixels": IMAGE_SIZE * IMAGE_SIZE,
        },
        "idefics3": {
            "image_processor_type": "Idefics3ImageProcessor",
            "processor_class": "Idefics3Processor",
            "size": {"longest_edge": IMAGE_SIZE},
            "max_image_size": {"longest_edge": IMAGE_SIZE},
            "do_image_splitting": False,
        },
        "llava": {
            "image_processor_type": "CLIPImageProcessor",
            "processor_class": "LlavaProcessor",
            "size": {"shortest_edge": IMAGE_SIZE},
            "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        },
        "blip_2": of_blip_2,
        "blip_2_retrieval": of_blip_2,
    }[family]
    text = json.dumps(image_processor, indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")
