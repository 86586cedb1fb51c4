"""Random models in the layout in which Qwen2-VL-7B, Idefics3-8B-Llama3 and LLaVA-1.5-7B are published, at any size.

Files have the names, keys and token ids of the published ones; only sizes, weights and vocabulary are our own. Sources,
all read where others quote them and not at the hub itself:

* Qwen2-VL: `config.json`, `preprocessor_config.json`, `chat_template.json` and `tokenizer_config.json` of the hub's
  Qwen/Qwen2-VL-7B-Instruct. Its weights bear the names from before `transformers` put the language model under
  `model.language_model` and the tower under `model.visual`; the library renames them as it loads them.
* Idefics3: the defaults of `Idefics3Config`, `Idefics3ImageProcessor` and `Idefics3Processor` in `transformers`, which
  are those of the hub's HuggingFaceM4/Idefics3-8B-Llama3; its conversion script convert_idefics3_weights_to_hf.py; the
  config and special tokens of Llama 3.1; end tokens, their absence from the config and that there is no
  `generation_config.json` by https://github.com/Blaizzy/mlx-vlm/issues/1932. The three tokens that it adds follow
  Llama's 128,256, which makes the published 128,259; the names of rows and columns of tiles are ordinary text.

* LLaVA: the defaults of `LlavaConfig` in `transformers`, which are those of the hub's llava-hf/llava-1.5-7b-hf; its
  conversion script convert_llava_weights_to_hf.py; the tokenizer of Llama 2, to which `<image>` and `<pad>` are added
  and whose embedding is padded to a multiple of 64 rows. Its weights bear the names from before `transformers` put all
  parts under `model`, and the tower's those from before it took `vision_model` out of them.

The vocabulary is a byte-level BPE trained on `CORPUS` and filled up with tokens that no text contains, so that special
tokens have their published ids; that of LLaVA writes spaces out and falls back on bytes. Weights are uniform. In the
head the rows of `ANSWER_WORDS` and of the end token are the largest: greedy answers are a few of these words, they
differ, many end, and some are right.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from quantrust.models.components import NormKind
from quantrust.models.loading import load_family
from quantrust.planning.published import idefics3, llava, qwen2_vl

TEMPLATES = {module.__name__.rpartition(".")[2]: module.TEMPLATE for module in (idefics3, llava, qwen2_vl)}
ANSWER_WORDS = ("yes", "no", "red", "blue", "green", "yellow", "one", "two", "three", "four")
SHAPES_DRAWN = ("circle", "square", "triangle", "bar")
CORPUS = (
    "You are a helpful assistant. system user assistant User: Assistant: row col",
    "Answer the question using a single word or phrase.",
    "Give a very brief answer.",
    "When the provided information is insufficient, respond with unanswerable.",
    "What color is the large shape? How many shapes are there? Is there a shape in the picture? Which shape is it?",
    "Describe the picture. It shows a shape of some color on the left, on the right, before a background of another.",
    *(
        f"Is it {word}? Is there a {word} {shape}? {word} {shape} {word}"
        for word in ANSWER_WORDS
        for shape in SHAPES_DRAWN
    ),
)


HEAD = "lm_head.weight"
LOOKING_CLOSELY = ("q_proj", "k_proj", "self_attn.o_proj")
"""Linears with large weights."""


@dataclass(frozen=True)
class Size:
    """The numbers in which a model differs from the published one, or is it.

    Attributes
    ----------
    ordinary : int
        Tokens of the vocabulary that are not special; the first special token has this id.
    vocabulary : int
        Rows of embedding and head.
    tile : int
        Side of the squares that Idefics3 cuts pictures into, and that LLaVA makes of them; 0 where there are none.
    rotary : tuple of int
        Rotary channels of time, height and width in Qwen2-VL.
    shard_bytes : int
        What a file of weights holds at most, a tensor that is larger apart.
    """

    ordinary: int
    vocabulary: int
    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    vision_hidden: int
    vision_mlp: int
    vision_heads: int
    shard_bytes: int
    tile: int = 0
    rotary: tuple[int, int, int] = (16, 24, 24)
    blocks: int = 2
    vision_blocks: int = 2


FULL_WIDTH = {
    "qwen2_vl": Size(151643, 152064, 3584, 18944, 28, 4, 1280, 5120, 16, shard_bytes=2**30),
    "idefics3": Size(128000, 128259, 4096, 14336, 32, 8, 1152, 4304, 16, shard_bytes=2**30, tile=364),
    "llava": Size(32000, 32064, 4096, 11008, 32, 32, 1024, 4096, 16, shard_bytes=2**30, tile=336, vision_blocks=3),
}
MINI = {
    "qwen2_vl": Size(640, 704, 64, 128, 4, 2, 64, 128, 4, shard_bytes=2**18, rotary=(2, 3, 3)),
    "idefics3": Size(640, 899, 64, 128, 4, 2, 64, 128, 4, shard_bytes=2**18, tile=56),
    "llava": Size(640, 704, 64, 128, 4, 4, 64, 128, 4, shard_bytes=2**18, tile=56, vision_blocks=3),
}

QWEN2_VL_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
LLAMA3_NAMED = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    4: "<|finetune_right_pad_id|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    8: "<|eom_id|>",
    9: "<|eot_id|>",
    10: "<|python_tag|>",
}


def special_tokens(family: str) -> list[str]:
    """Return the special tokens of a family, by their ids from the first on."""
    if family == "qwen2_vl":
        return list(QWEN2_VL_SPECIAL)
    if family == "llava":
        return ["<image>", "<pad>"]
    reserved = iter(range(256))
    llama = [LLAMA3_NAMED.get(k) or f"<|reserved_special_token_{next(reserved)}|>" for k in range(256)]
    return [*llama, "<fake_token_around_image>", "<image>", "<end_of_utterance>"]


LLAMA2_SPECIAL = ("<unk>", "<s>", "</s>")
"""At the beginning of the vocabulary."""
END_TOKENS = {"qwen2_vl": "<|im_end|>", "idefics3": "<end_of_utterance>", "llava": "</s>"}
PAD_TOKENS = {"qwen2_vl": "<|endoftext|>", "idefics3": "<|reserved_special_token_0|>", "llava": "<pad>"}
SPACES = {"qwen2_vl": "Ġ", "idefics3": "Ġ", "llava": "▁"}
"""What stands for a space in the tokens of words."""


def model_config(family: str, size: Size) -> dict:
    """Return `config.json` with the keys that the published one has."""
    ids = {token: size.ordinary + k for k, token in enumerate(special_tokens(family))}
    text = {
        "hidden_size": size.hidden,
        "intermediate_size": size.mlp,
        "num_attention_heads": size.heads,
        "num_hidden_layers": size.blocks,
        "num_key_value_heads": size.kv_heads,
        "vocab_size": size.vocabulary,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }
    if family == "qwen2_vl":
        return {
            "architectures": ["Qwen2VLForConditionalGeneration"],
            "model_type": "qwen2_vl",
            **text,
            "attention_dropout": 0.0,
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "vision_start_token_id": ids["<|vision_start|>"],
            "vision_end_token_id": ids["<|vision_end|>"],
            "vision_token_id": ids["<|vision_pad|>"],
            "image_token_id": ids["<|image_pad|>"],
            "video_token_id": ids["<|video_pad|>"],
            "initializer_range": 0.02,
            "max_position_embeddings": 32768,
            "max_window_layers": 28,
            "rms_norm_eps": 1e-06,
            "rope_theta": 1000000.0,
            "rope_scaling": {"type": "mrope", "mrope_section": list(size.rotary)},
            "sliding_window": 32768,
            "use_sliding_window": False,
            "tie_word_embeddings": False,
            "transformers_version": "4.41.2",
            "vision_config": {
                "depth": size.vision_blocks,
                "embed_dim": size.vision_hidden,
                "mlp_ratio": size.vision_mlp // size.vision_hidden,
                "num_heads": size.vision_heads,
                "in_chans": 3,
                "hidden_size": size.hidden,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "spatial_patch_size": 14,
                "temporal_patch_size": 2,
            },
        }
    if family == "llava":
        return {
            "architectures": ["LlavaForConditionalGeneration"],
            "model_type": "llava",
            "ignore_index": -100,
            "image_token_index": ids["<image>"],
            "pad_token_id": ids["<pad>"],
            "projector_hidden_act": "gelu",
            "tie_word_embeddings": False,
            "torch_dtype": "bfloat16",
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "text_config": {
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                **text,
                "max_position_embeddings": 4096,
                "rms_norm_eps": 1e-05,
            },
            "vision_config": {
                "model_type": "clip_vision_model",
                "hidden_size": size.vision_hidden,
                "image_size": size.tile,
                "intermediate_size": size.vision_mlp,
                "num_attention_heads": size.vision_heads,
                "num_hidden_layers": size.vision_blocks,
                "patch_size": 14,
                "projection_dim": size.vision_hidden,
                "vocab_size": size.ordinary,
            },
        }
    return {
        "architectures": ["Idefics3ForConditionalGeneration"],
        "model_type": "idefics3",
        "image_token_id": ids["<image>"],
        "scale_factor": 2,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "text_config": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            **text,
            "bos_token_id": ids["<|begin_of_text|>"],
            "eos_token_id": [ids[token] for token in ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")],
            "pad_token_id": ids[PAD_TOKENS["idefics3"]],
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
            "hidden_size": size.vision_hidden,
            "image_size": size.tile,
            "intermediate_size": size.vision_mlp,
            "num_attention_heads": size.vision_heads,
            "num_hidden_layers": size.vision_blocks,
            "patch_size": 14,
        },
    }


def preprocessor_config(family: str, size: Size) -> dict:
    """Return `preprocessor_config.json`."""
    if family == "qwen2_vl":
        return {
            "min_pixels": 3136,
            "max_pixels": 12845056,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2VLProcessor",
        }
    if family == "llava":
        return {
            "crop_size": {"height": size.tile, "width": size.tile},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "image_processor_type": "CLIPImageProcessor",
            "processor_class": "LlavaProcessor",
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"shortest_edge": size.tile},
        }
    return {
        "do_convert_rgb": True,
        "do_image_splitting": True,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "Idefics3ImageProcessor",
        "max_image_size": {"longest_edge": size.tile},
        "processor_class": "Idefics3Processor",
        "resample": 1,
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": 4 * size.tile},
    }


def build_tokenizer(family: str, size: Size) -> Tokenizer:
    """Return a BPE in which every special token has its published id."""
    if family == "llava":
        return _build_llama2_tokenizer(size)
    return build_byte_level_tokenizer(special_tokens(family), size.ordinary)


def build_byte_level_tokenizer(special: list[str], ordinary: int) -> Tokenizer:
    """Return a byte-level BPE with so many ordinary tokens, followed by special ones."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=ordinary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # As often as it takes until every word of the corpus is a token.
    tokenizer.train_from_iterator(CORPUS * 2, trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    vocabulary = trained["vocab"]
    vocabulary |= {f"unused{k}": k for k in range(len(vocabulary), ordinary)}
    merges = [tuple(pair) for pair in trained["merges"]]
    filled = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    filled.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    filled.decoder = decoders.ByteLevel()
    filled.add_special_tokens(special)
    return filled


def _build_llama2_tokenizer(size: Size) -> Tokenizer:
    """Return a BPE that puts a space before every text, spells spaces out and falls back on bytes."""
    space = SPACES["llava"]
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.Metaspace(replacement=space, prepend_scheme="always")
    words.train_from_iterator(CORPUS * 2, trainers.BpeTrainer(vocab_size=size.ordinary // 2, show_progress=False))
    trained = json.loads(words.to_str())["model"]
    tokens = [*LLAMA2_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *trained["vocab"]]
    tokens += [f"unused{k}" for k in range(len(tokens), size.ordinary)]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: k for k, token in enumerate(tokens)},
            merges=[tuple(pair) for pair in trained["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(space), normalizers.Replace(" ", space)])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([*LLAMA2_SPECIAL, *special_tokens("llava")])
    return tokenizer


def write_model_folder(folder: Path, family: str, size: Size, seed: int = 0) -> None:
    """Write a model folder in the published layout; memory holds one file of weights at a time.

    Parameters
    ----------
    folder : Path
        Made, with its parents.
    family : {"qwen2_vl", "idefics3", "llava"}
    size : Size
    seed : int
        Of the weights.
    """
    folder.mkdir(parents=True)
    tokenizer = build_tokenizer(family, size)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(family, size))
    _write_json(folder / "config.json", model_config(family, size))
    _write_json(folder / "preprocessor_config.json", preprocessor_config(family, size))
    _write_json(folder / "chat_template.json", {"chat_template": TEMPLATES[family]})
    if family == "qwen2_vl":
        pad, end = size.ordinary, size.ordinary + special_tokens(family).index("<|im_end|>")
        generation = {"bos_token_id": pad, "pad_token_id": pad, "do_sample": True, "eos_token_id": [end, pad]}
        _write_json(folder / "generation_config.json", generation)
    elif family == "llava":
        generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": size.ordinary + 1}
        _write_json(folder / "generation_config.json", generation)
        processor = {
            "image_token": "<image>",
            "num_additional_image_tokens": 1,
            "patch_size": 14,
            "processor_class": "LlavaProcessor",
            "vision_feature_select_strategy": "default",
        }
        _write_json(folder / "processor_config.json", processor)
    else:
        processor = {"image_seq_len": (size.tile // 28) ** 2, "processor_class": "Idefics3Processor"}
        _write_json(folder / "processor_config.json", processor)
    answers = [tokenizer.token_to_id(SPACES[family] + word) for word in ANSWER_WORDS]
    end = tokenizer.token_to_id(END_TOKENS[family])
    assert None not in answers, "the tokenizer splits an answer"
    write_weights(folder, family, partial(published_name, family), size.shard_bytes, seed, answers, end)


def published_name(family: str, name: str) -> str:
    """Return the name under which a tensor of `transformers` is published."""
    if family == "llava":
        name = name.replace("model.language_model.", "language_model.model.").replace(
            "lm_head", "language_model.lm_head"
        )
        return name.replace("model.vision_tower.", "vision_tower.vision_model.").replace("model.multi_", "multi_")
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


def _tokenizer_config(family: str, size: Size) -> dict:
    special = special_tokens(family)
    marks = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    common = {
        "added_tokens_decoder": {str(size.ordinary + k): {"content": t, **marks} for k, t in enumerate(special)},
        "chat_template": TEMPLATES[family],
        "clean_up_tokenization_spaces": family == "idefics3",
        "pad_token": PAD_TOKENS[family],
    }
    if family == "llava":
        return {
            **common,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "legacy": False,
            "model_max_length": 10**30,
            "padding_side": "left",
            "processor_class": "LlavaProcessor",
            "tokenizer_class": "LlamaTokenizer",
            "unk_token": "<unk>",
        }
    if family == "qwen2_vl":
        return {
            **common,
            "add_prefix_space": False,
            "additional_special_tokens": special[1:],
            "bos_token": None,
            "eos_token": END_TOKENS[family],
            "errors": "replace",
            "model_max_length": 32768,
            "padding_side": "left",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        }
    return {
        **common,
        "additional_special_tokens": special[-3:],
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>",
        "model_max_length": 131072,
        "processor_class": "Idefics3Processor",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def write_weights(
    folder: Path,
    family: str,
    published: Callable[[str], str],
    shard_bytes: int,
    seed: int,
    answers: list[int],
    end: int,
) -> None:
    """Write random weights for the config of a folder, in shards and with their index.

    Parameters
    ----------
    folder : Path
    family : str
    published : callable
        Maps the name of a tensor in `transformers` to that under which it is published.
    shard_bytes : int
        What a file holds at most, a tensor that is larger apart.
    seed : int
    answers : list of int
        Tokens whose rows of the head are large.
    end : int
        The token whose row is the largest.
    """
    shapes, zeros = _tensor_shapes(folder, family)
    embedding, tied = f"{load_family(family).embedding}.weight", HEAD not in shapes
    shards: list[list[str]] = [[]]
    for name, shape in shapes.items():
        if shards[-1] and sum(_bytes(shapes[other]) for other in shards[-1]) + _bytes(shape) > shard_bytes:
            shards.append([])
        shards[-1].append(name)
    places = {}
    generator = torch.Generator().manual_seed(seed)
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {published(name): _weight(name, shapes[name], generator) for name in names}
        for name in zeros.intersection(names):
            tensors[published(name)].zero_()
        if tied and embedding in names:
            # an answer that follows from the last token alone would say nothing
            tensors[published(embedding)] /= 8
        if (head := tensors.get(published(embedding if tied else HEAD))) is not None:
            head[answers] *= 8
            head[end] *= 8 if tied else 16
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, file)
    index = {"metadata": {"total_size": sum(map(_bytes, shapes.values()))}, "weight_map": dict(sorted(places.items()))}
    _write_json(folder / "model.safetensors.index.json", index)


def _tensor_shapes(folder: Path, family: str) -> tuple[dict[str, torch.Size], set[str]]:
    """Return the shape of every tensor of the model that a config describes, and those that leave a norm as it is at 0.

    Names are those of `transformers`.
    """
    adapter = load_family(family)
    with torch.device("meta"):
        model = adapter.model_class(adapter.model_class.config_class.from_pretrained(folder))
    model.tie_weights()
    kinds = dict(adapter.norms)
    zeros = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if kinds.get(type(module)) is NormKind.ONE_PLUS_WEIGHT
    }
    # of tensors that are one, only the first is published
    return {name: parameter.shape for name, parameter in model.named_parameters()}, zeros


def _bytes(shape: torch.Size) -> int:
    return torch.bfloat16.itemsize * shape.numel()


def _weight(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    if len(shape) == 1 and name.endswith("weight"):  # of a norm
        return torch.ones(shape, dtype=torch.bfloat16)
    if len(shape) == 1:
        bound = 0.1
    elif "embed" in name:
        bound = 0.5
    else:
        # Attention that looks closely and outweighs the token itself: then answers depend on question and picture.
        gain = next((8 for ending in LOOKING_CLOSELY if name.endswith(f"{ending}.weight")), 2)
        bound = gain / math.sqrt(shape[1:].numel())
    return torch.empty(shape, dtype=torch.bfloat16).uniform_(-bound, bound, generator=generator)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
