"""A tiny random model that matches images with texts."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import Blip2Config, Blip2ForImageTextRetrieval

SIDE, QUERIES, CHANNELS = 56, 6, 32


def write_retrieval(folder: Path, texts: Iterable[str], positions: int = 16) -> None:
    """Write a tiny random model in the published layout, which knows the words of some texts."""
    words = sorted({word for text in texts for word in text.lower().split()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {token: k for k, token in enumerate([*special, *words])}
    config = Blip2Config(
        num_query_tokens=QUERIES,
        image_text_hidden_size=CHANNELS,
        vision_config={
            "hidden_size": 96,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": SIDE,
        },
        qformer_config={
            "vocab_size": len(vocabulary),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": positions,
            "use_qformer_text_input": True,
        },
    )
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
            {"image_processor_type": "BlipImageProcessor", "size": {"height": SIDE, "width": SIDE}},
        ),
    ):
        (folder / name).write_text(json.dumps(content))
