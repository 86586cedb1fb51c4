"""A tiny random model that matches images with texts."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import Blip2Config, Blip2ForImageTextRetrieval

SIDE, QUERIES, CHANNELS = 56, 6, 32
TINY = {
    "num_query_tokens": QUERIES,
    "image_text_hidden_size": CHANNELS,
    "vision_config": {
        "hidden_size": 96,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": SIDE,
    },
    "qformer_config": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    },
}
WIDE = {
    "num_query_tokens": 32,
    "image_text_hidden_size": 256,
    "vision_config": {
        "hidden_size": 1408,
        "intermediate_size": 6144,
        "num_hidden_layers": 2,
        "num_attention_heads": 16,
        "image_size": 364,
    },
    "qformer_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 2,
        "num_attention_heads": 12,
    },
}
"""The widths of blip2-itm-vit-g-coco: ViT-g at 364 pixels, a Q-Former of BERT's width."""


def write_retrieval(
    folder: Path, texts: Iterable[str], positions: int = 16, size: Mapping[str, Any] = TINY, rows: int = 0
) -> None:
    """Write a random model in the published layout, which knows the words of some texts.

    Parameters
    ----------
    folder : Path
    texts : iterable of str
    positions : int
        Tokens of a text, at most.
    size : mapping
        What of the config differs from the library's defaults.
    rows : int
        Rows of the embedding at least.
    """
    words = sorted({word for text in texts for word in text.lower().split()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {token: k for k, token in enumerate([*special, *words])}
    reading = {"vocab_size": max(len(vocabulary), rows), "max_position_embeddings": positions}
    reading["use_qformer_text_input"] = True
    config = Blip2Config(**{**size, "qformer_config": {**size["qformer_config"], **reading}})
    side = config.vision_config.image_size
    model = Blip2ForImageTextRetrieval(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            norm = parameter.dim() == 1 and name.endswith("weight")
            bound = 0.5 if parameter.dim() == 1 or "embed" in name else 3 / parameter[0].numel() ** 0.5
            parameter.uniform_(-bound, bound, generator=generator).add_(1.0 if norm else 0.0)
            # as a checkpoint in bfloat16 has them
            parameter.copy_(parameter.bfloat16())
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in (
        ("tokenizer_config.json", {"pad_token": "[PAD]", "tokenizer_class": "PreTrainedTokenizerFast"}),
        (
            "preprocessor_config.json",
            {"image_processor_type": "BlipImageProcessor", "size": dict.fromkeys(("height", "width"), side)},
        ),
    ):
        (folder / name).write_text(json.dumps(content))
