"""Ways to damage a model folder: every file in the ways that any file is damaged, and in those of its own content.

Each is a function that changes a folder in place, under a name that says what it does. No model can be made of what it
leaves, or only another one than was meant.
"""

import json
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Damage = Callable[[Path], None]

JSON_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
WEIGHTS = "model.safetensors"
TEMPLATE = "chat_template.jinja"
# Where a config is without these, others stand in, or there is nothing that any part needs.
MAY_BE_MISSING = ("generation_config.json",)

IMAGES = {"qwen2_vl": "<|vision_start|><|image_pad|><|vision_end|>", "idefics3": "<image>"}
END_TOKENS = {"qwen2_vl": "<|im_end|>", "idefics3": "<end_of_utterance>"}
TEXT = "{{ messages[0]['content'][1]['text'] }}"
HEADS = {"qwen2_vl": "num_heads", "idefics3": "num_attention_heads"}


def damages(family: str) -> dict[str, Damage]:
    """Return all damages of a folder of a family, by their names."""
    found: dict[str, Damage] = {}
    for file in (*JSON_FILES, TEMPLATE, WEIGHTS):
        for name, change in _of_any_file(file):
            found[f"{file}: {name}"] = change
    for file, cases in _of_content(family).items():
        for name, change in cases:
            found[f"{file}: {name}"] = change
    return found


def _of_any_file(file: str) -> Iterator[tuple[str, Damage]]:
    def write(content: Callable[[bytes], bytes], folder: Path) -> None:
        path = folder / file
        path.write_bytes(content(path.read_bytes()))

    def replace_by_folder(folder: Path) -> None:
        (folder / file).unlink()
        (folder / file).mkdir()

    if file not in MAY_BE_MISSING:
        yield "missing", lambda folder: (folder / file).unlink()
        yield "a folder", replace_by_folder
    contents: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda old: b"",
        "another encoding": lambda old: b"\xff\xfe" + old.decode("latin-1").encode("utf-16-le"),
    }
    if file != TEMPLATE:
        contents["cut short"] = lambda old: old[: len(old) // 2]
    if file != WEIGHTS:
        contents["a byte order mark"] = lambda old: b"\xef\xbb\xbf" + old
    if file in JSON_FILES:
        contents |= {
            "a list": lambda old: b"[]",
            "null": lambda old: b"null",
            "a text": lambda old: b'"a model"',
            "two objects": lambda old: old + b"{}",
            "nested too deeply": lambda old: b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        }
    if file == WEIGHTS:
        contents |= {
            "a page of the web": lambda old: b"<!DOCTYPE html><html></html>",
            "a pointer of git": lambda old: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "a header that is longer than the file": lambda old: struct.pack("<Q", 1 << 40) + old[8:],
            "a header that is no JSON": lambda old: old[:8] + b"x" * 64 + old[72:],
        }
    for name, content in contents.items():
        yield name, partial(write, content)


def _of_content(family: str) -> dict[str, list[tuple[str, Damage]]]:
    return {
        "config.json": [*_each("config.json", _config_values(family))],
        "generation_config.json": [*_each("generation_config.json", _generation_values())],
        "preprocessor_config.json": [
            *_each("preprocessor_config.json", _processor_values(family)),
            ("the pixels by other names alone", _pixels_by_other_names),
            *([("small pictures made large", _small_pictures_made_large)] if family == "qwen2_vl" else []),
        ],
        "tokenizer.json": [*_tokenizers(family)],
        "tokenizer_config.json": [*_each("tokenizer_config.json", _tokenizer_values())],
        TEMPLATE: [*_templates(family)],
        WEIGHTS: [*_weights()],
    }


def put(file: str, key: str, value: Any, folder: Path) -> None:
    """Give a key of a JSON file, with dots for those in objects, another value."""
    path = folder / file
    content = json.loads(path.read_text())
    *parents, last = key.split(".")
    place = content
    for parent in parents:
        place = place[parent]
    place[last] = value
    path.write_text(json.dumps(content))


def _each(file: str, values: list[tuple[str, Any]]) -> Iterator[tuple[str, Damage]]:
    for key, value in values:
        yield f"{key} = {json.dumps(value)}", partial(put, file, key, value)


def _config_values(family: str) -> list[tuple[str, Any]]:
    heads = f"vision_config.{HEADS[family]}"
    common: list[tuple[str, Any]] = [
        ("model_type", "mllama"),
        ("model_type", None),
        ("model_type", ["qwen2_vl"]),
        ("text_config", []),
        ("text_config", "text"),
        ("text_config", {}),
        ("vision_config", []),
        ("vision_config", 3),
        ("text_config.hidden_size", "64"),
        ("text_config.hidden_size", 0),
        ("text_config.hidden_size", 65),
        ("text_config.hidden_size", 10**12),
        ("text_config.intermediate_size", [192]),
        ("text_config.num_attention_heads", 0),
        ("text_config.num_attention_heads", 3),
        ("text_config.num_key_value_heads", 0),
        ("text_config.num_key_value_heads", 3),
        ("text_config.num_hidden_layers", 2),
        ("text_config.num_hidden_layers", -1),
        ("text_config.num_hidden_layers", 10**9),
        ("text_config.num_hidden_layers", 9_999),
        ("text_config.head_dim", 10**7),
        ("text_config.vocab_size", 10),
        ("text_config.vocab_size", None),
        ("text_config.hidden_act", "zz"),
        ("text_config.hidden_act", 3),
        ("text_config.rms_norm_eps", "small"),
        ("text_config.rms_norm_eps", float("nan")),
        ("text_config.max_position_embeddings", 0),
        ("text_config.rope_parameters", []),
        ("text_config.rope_parameters", {"rope_type": "zz", "rope_theta": 1e4}),
        ("text_config.rope_parameters", {"rope_type": "default", "rope_theta": "large"}),
        ("text_config.rope_parameters", {"rope_type": "default", "rope_theta": 0}),
        ("text_config.rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4, "factor": "x"}),
        ("vision_config.hidden_act", "zz"),
        ("vision_config.patch_size", 0),
        ("vision_config.patch_size", 7),
        ("vision_config.patch_size", "x"),
        (heads, 0),
        (heads, 3),
        (heads, "four"),
        ("tie_word_embeddings", True),
        ("tie_word_embeddings", "yes"),
        ("image_token_id", 1),
        ("image_token_id", "x"),
        ("id2label", 3),
        ("text_config.bos_token_id", json.loads("[" * 50 + "]" * 50)),
        ("text_config.model_type", [0]),
        ("vision_config.model_type", [0]),
        ("transformers_weights", "other.safetensors"),
    ]
    own: dict[str, list[tuple[str, Any]]] = {
        "qwen2_vl": [
            ("vision_config.depth", 10**9),
            ("vision_config.embed_dim", 64),
            ("vision_config.spatial_merge_size", 0),
            ("vision_config.spatial_merge_size", 1),
            ("vision_config.temporal_patch_size", 1),
            ("vision_config.in_channels", 1),
            ("vision_config.mlp_ratio", 0),
            ("text_config.layer_types", ["full_attention"]),
            ("text_config.layer_types", ["zz"] * 3),
            ("text_config.rope_parameters.mrope_section", [2, 3]),
            ("text_config.rope_parameters.mrope_section", "x"),
        ],
        "idefics3": [
            ("vision_config.num_hidden_layers", 10**9),
            ("vision_config.image_size", 128),
            ("vision_config.image_size", 0),
            ("vision_config.num_channels", 1),
            ("vision_config.layer_norm_eps", None),
            ("scale_factor", 0),
            ("scale_factor", 3),
            ("scale_factor", "two"),
            ("text_config.model_type", "zz"),
            ("text_config.head_dim", 15),
        ],
    }
    return common + own[family]


def _generation_values() -> list[tuple[str, Any]]:
    return [
        ("eos_token_id", "end"),
        ("eos_token_id", [1, "end"]),
        ("eos_token_id", 10**6),
        ("eos_token_id", -1),
        ("eos_token_id", {}),
        ("eos_token_id", 1.5),
        ("eos_token_id", True),
    ]


def _processor_values(family: str) -> list[tuple[str, Any]]:
    common: list[tuple[str, Any]] = [
        ("image_mean", "x"),
        ("image_mean", [0.5, 0.5]),
        ("image_mean", [0.5, 0.5, "x"]),
        ("image_mean", [0.5, 0.5, float("nan")]),
        ("image_mean", [0.5, 0.5, 10**400]),
        ("image_std", 0),
        ("image_std", [0.5, 0.5, 0]),
        ("image_std", [-0.5, 0.5, 0.5]),
        ("image_std", [[0.5], [0.5], [0.5]]),
        ("image_std", [1e300, 1e300, 1e300]),
        ("rescale_factor", 0),
        ("rescale_factor", "x"),
        ("rescale_factor", float("inf")),
        ("rescale_factor", 1e-300),
        ("resample", "x"),
        ("resample", 99),
        ("size", "large"),
        ("size", [64]),
        ("size", {"width": 64}),
        ("do_resize", "x"),
    ]
    own: dict[str, list[tuple[str, Any]]] = {
        "qwen2_vl": [
            ("min_pixels", 10**6),
            ("min_pixels", 0),
            ("min_pixels", "x"),
            ("min_pixels", 10**14),
            ("max_pixels", -1),
            ("max_pixels", []),
            ("patch_size", 16),
            ("patch_size", 0),
            ("patch_size", "x"),
            ("merge_size", 1),
            ("merge_size", 0),
            ("temporal_patch_size", 4),
            ("temporal_patch_size", 0),
        ],
        "idefics3": [
            ("size", {"longest_edge": 0}),
            ("size", {"longest_edge": "x"}),
            ("size", {"longest_edge": -64}),
            ("size", {"longest_edge": 4097}),
            ("max_image_size", {"longest_edge": 32}),
            ("max_image_size", {"longest_edge": 128}),
            ("max_image_size", {"longest_edge": 10**9}),
            ("max_image_size", {}),
            ("max_image_size", "x"),
            ("max_image_size", None),
        ],
    }
    return common + own[family]


def _pixels_by_other_names(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    content = json.loads(path.read_text())
    for key in ("min_pixels", "max_pixels"):
        content.pop(key, None)
    path.write_text(json.dumps({**content, "size": {"min_pixels": 64, "max_pixels": 4096}}))


def _small_pictures_made_large(folder: Path) -> None:
    """Scale them so that the smallest becomes tens of thousands of tokens, over which attention takes for ever."""
    for key in ("min_pixels", "max_pixels"):
        put("preprocessor_config.json", key, 10**7, folder)


def _tokenizer_values() -> list[tuple[str, Any]]:
    return [
        ("pad_token", None),
        ("pad_token", "<|no such token|>"),
        ("pad_token", 3),
        ("eos_token", {"content": 3}),
        ("extra_special_tokens", 3),
        ("added_tokens_decoder", []),
        ("added_tokens_decoder", {"x": {"content": "a"}}),
        ("added_tokens_decoder", {"9000": {"content": "<far>", "special": True}}),
        ("split_special_tokens", True),
        ("model_max_length", "long"),
        ("model_max_length", [512]),
    ]


def _tokenizers(family: str) -> Iterator[tuple[str, Damage]]:
    def edit(change: Callable[[dict[str, Any]], None], folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        change(content)
        (folder / "tokenizer.json").write_text(json.dumps(content))

    def without(token: str, content: dict[str, Any]) -> None:
        content["added_tokens"] = [entry for entry in content["added_tokens"] if entry["content"] != token]
        number = content["model"]["vocab"].pop(token, None)
        if number is not None:
            content["model"]["vocab"]["nothing"] = number

    def far(content: dict[str, Any]) -> None:
        content["model"]["vocab"]["far"] = 100_000

    def no_model(content: dict[str, Any]) -> None:
        content["model"] = {}

    def vocab_as_list(content: dict[str, Any]) -> None:
        content["model"]["vocab"] = list(content["model"]["vocab"])

    def merges_of_nothing(content: dict[str, Any]) -> None:
        content["model"]["merges"] = [["never", "seen"]]

    def unknown_kind(content: dict[str, Any]) -> None:
        content["pre_tokenizer"] = {"type": "Nothing"}

    def deaf(content: dict[str, Any]) -> None:
        content["normalizer"] = {"type": "Replace", "pattern": {"Regex": "."}, "content": ""}

    image = {"qwen2_vl": "<|image_pad|>", "idefics3": "<image>"}[family]
    for name, change in {
        "no image token": partial(without, image),
        "no end token": partial(without, END_TOKENS[family]),
        "a token beyond the embedding": far,
        "no model": no_model,
        "a vocabulary without ids": vocab_as_list,
        "merges of tokens that are not there": merges_of_nothing,
        "a kind of step that does not exist": unknown_kind,
        "a step that leaves no text": deaf,
    }.items():
        yield name, partial(edit, change)


def _templates(family: str) -> Iterator[tuple[str, Damage]]:
    image = IMAGES[family]
    for name, text in {
        "blank": " \n",
        "a block that does not end": "{% for m in messages %}" + image + TEXT,
        "a filter that does not exist": image + "{{ messages | never }}",
        "a function that does not exist": image + "{{ never() }}" + TEXT,
        "an error of its own": "{{ raise_exception('no pictures') }}",
        "a division by zero": image + TEXT + "{{ 1 / 0 }}",
        "the content as a list": image[:0] + "{{ messages[0]['content'] }}",
        "no picture": TEXT,
        "two pictures": image + image + TEXT,
        "the picture after the question": TEXT + image,
        "no question": image,
        "the question twice": image + TEXT + TEXT,
        "a loop without an end": image + "{% for a in range(9**5) %}" * 9 + "{% endfor %}" * 9 + TEXT,
        "a text that fills the memory": image + "{{ 'a' * 10**11 }}" + TEXT,
        "an attribute of Python": image + "{{ ''.__class__.__mro__ }}" + TEXT,
    }.items():
        yield name, lambda folder, text=text: (folder / TEMPLATE).write_text(text)

    def named(value: Any, folder: Path) -> None:
        (folder / TEMPLATE).unlink()
        put("tokenizer_config.json", "chat_template", value, folder)

    good = image + TEXT
    for name, value in {
        "named templates without a default": [{"name": "rag", "template": good}, {"name": "tools", "template": good}],
        "a list of texts": [good],
        "an empty list": [],
        "a default that is no text": [{"name": "default", "template": 3}],
        "a number": 3,
        "a map without a default": {"rag": good},
    }.items():
        yield name, partial(named, value)


def _weights() -> Iterator[tuple[str, Damage]]:
    def edit(change: Callable[[dict[str, torch.Tensor]], None], folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    def set_head(value: Callable[[torch.Tensor], torch.Tensor], tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = value(tensors["lm_head.weight"]).contiguous()

    def spoil(number: float, tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"][1, 2] = number

    changes: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
        "NaN": partial(spoil, float("nan")),
        "an infinite value": partial(spoil, -float("inf")),
        "a tensor too few": lambda tensors: tensors.pop("lm_head.weight"),
        "a tensor too many": lambda tensors: tensors.update({"lm_head.extra": torch.zeros(1)}),
        "no tensor at all": lambda tensors: tensors.clear(),
        "a transposed tensor": partial(set_head, lambda head: head.T),
        "a tensor without a dimension": partial(set_head, lambda head: head[0, 0]),
        **{
            f"a tensor of {str(dtype).removeprefix('torch.')}": partial(
                set_head, lambda head, dtype=dtype: head.to(dtype)
            )
            for dtype in (torch.int8, torch.uint8, torch.int64, torch.bool, torch.float8_e4m3fn)
        },
        "scales beside an int8 tensor": lambda tensors: tensors.update(
            {"lm_head.weight": tensors["lm_head.weight"].to(torch.int8), "lm_head.SCB": torch.ones(1)}
        ),
    }
    for name, change in changes.items():
        yield name, partial(edit, change)

    def beside(name: str, content: bytes, folder: Path) -> None:
        (folder / name).write_bytes(content)

    yield "an adapter beside it", partial(beside, "adapter_config.json", b"{}")
    index = json.dumps({"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}).encode()
    yield "an index of other files beside it", partial(beside, "model.safetensors.index.json", index)
    for name, content in {
        "an index that names no file": b'{"weight_map": {}}',
        "an index that is a list": b"[]",
        "an index of numbers": b'{"weight_map": {"lm_head.weight": 3}}',
        "an index that leads out": b'{"weight_map": {"lm_head.weight": "../model.safetensors"}}',
        "an index of a file that is not there": index,
    }.items():

        def only_index(folder: Path, content: bytes = content) -> None:
            (folder / WEIGHTS).unlink()
            (folder / "model.safetensors.index.json").write_bytes(content)

        yield name, only_index
