"""Weights of a model folder: every shard, key and shape is found, or named."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quantrust.errors import QuantrustError
from quantrust.models.loading import load_model
from quantrust.models.skeleton import build_skeleton
from quantrust.models.weights import stored_tensors, weight_files

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
NORM = "model.language_model.norm.weight"


def write_shards(folder: Path, parts: list[dict[str, torch.Tensor]]) -> None:
    places = {}
    for shard, tensors in zip(SHARDS, parts, strict=True):
        save_file(tensors, folder / shard, metadata={"format": "pt"})
        places |= dict.fromkeys(tensors, shard)
    write_index(folder, places)


def write_index(folder: Path, places: dict[str, str]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def places(folder: Path) -> dict[str, str]:
    return json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]


def change(folder: Path, shard: str, **tensors: torch.Tensor | None) -> None:
    """Put tensors into a shard or take them out, with dots as double underscores, and keep the index in step."""
    held, named = load_file(folder / shard), places(folder)
    for key, tensor in tensors.items():
        name = key.replace("__", ".")
        held.pop(name, None)
        named.pop(name, None)
        if tensor is not None:
            held[name], named[name] = tensor, shard
    save_file(held, folder / shard, metadata={"format": "pt"})
    write_index(folder, named)


@pytest.fixture
def folder(model_folders, tmp_path) -> Path:
    """Qwen2-VL in two shards, by the names of the library; the language model's last norm is in the second."""
    folder = tmp_path / "model"
    shutil.copytree(model_folders["qwen2_vl"], folder)
    _, model, _ = load_model(folder)
    tensors = dict(model.state_dict())
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    cut = names.index(NORM)
    write_shards(folder, [{name: tensors[name] for name in part} for part in (names[:cut], names[cut:])])
    return folder


def refused(folder: Path, message: str) -> None:
    _, model = build_skeleton(folder)
    with pytest.raises(QuantrustError, match=message) as caught:
        stored_tensors(folder, model)
    assert "\n" not in str(caught.value)
    with pytest.raises(QuantrustError, match=re.escape(str(folder))):
        load_model(folder)


def test_shards_are_one_model(folder, model_folders):
    _, whole, _ = load_model(model_folders["qwen2_vl"])
    _, model, _ = load_model(folder)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in whole.state_dict().items())
    assert weight_files(folder)[NORM] == folder / SHARDS[1]
    assert stored_tensors(folder, whole).keys() == whole.state_dict().keys()


def test_names_of_before_the_library_changed_them_are_found(folder):
    """As Qwen2-VL-7B-Instruct is published."""
    parts = [load_file(folder / shard) for shard in SHARDS]
    old = [
        {n.replace("model.language_model.", "model.").replace("model.visual.", "visual."): t for n, t in part.items()}
        for part in parts
    ]
    write_shards(folder, old)
    _, model = build_skeleton(folder)
    stored = stored_tensors(folder, model)
    assert stored.keys() == model.state_dict().keys()
    assert (stored[NORM].path, stored[NORM].key, stored[NORM].shape) == (folder / SHARDS[1], "model.norm.weight", (64,))
    patches = stored["model.visual.patch_embed.proj.weight"]
    assert patches.key == "visual.patch_embed.proj.weight"
    assert torch.equal(load_file(patches.path)[patches.key], parts[1]["model.visual.patch_embed.proj.weight"])


def test_a_shard_that_the_index_names_and_the_disk_lacks_is_named_with_a_key(folder):
    (folder / SHARDS[0]).unlink()
    refused(folder, rf"{SHARDS[0]} is missing, though model\.safetensors\.index\.json names it for .*lm_head\.weight")


def test_a_shard_that_was_cut_short_is_named(folder):
    content = (folder / SHARDS[1]).read_bytes()
    (folder / SHARDS[1]).write_bytes(content[:-7])
    refused(folder, rf"{SHARDS[1]} is no whole safetensors file \(")


def test_an_index_that_does_not_describe_its_shards_is_refused(folder):
    named = places(folder)
    write_index(folder, {**named, "model.extra.weight": SHARDS[0]})
    refused(folder, rf"{SHARDS[0]} lacks model\.extra\.weight, which model\.safetensors\.index\.json says")
    write_index(folder, {name: shard for name, shard in named.items() if name != NORM})
    refused(folder, rf"{SHARDS[1]} holds {NORM}, which model\.safetensors\.index\.json does not name for it")
    write_index(folder, {**named, NORM: "../" + SHARDS[1]})
    refused(folder, r"names the shard \.\./model-00002")
    (folder / "model.safetensors.index.json").write_text("{")
    refused(folder, r"index\.json: is not valid JSON at line 1")
    (folder / "model.safetensors.index.json").unlink()
    refused(folder, r"holds no safetensors file that is known: expected model\.safetensors, or model")


def test_a_key_that_is_missing_unexpected_or_misshapen_is_named(folder):
    change(folder, SHARDS[1], model__language_model__norm__weight=None)
    refused(folder, rf"{folder}: 1 missing key in the weights \({NORM}\)")
    change(folder, SHARDS[1], model__language_model__norm__weight=torch.ones(64), model__extra__weight=torch.ones(2))
    refused(folder, rf"{folder}: 1 unexpected key in the weights \(model\.extra\.weight\)")
    change(folder, SHARDS[1], model__language_model__norm__weight=torch.ones(63), model__extra__weight=None)
    refused(folder, rf"1 mismatched key in the weights \({NORM} of \[63\] for \[64\] in {SHARDS[1]}\)")


def test_a_tensor_under_its_old_and_its_new_name_is_refused(folder):
    change(folder, SHARDS[0], model__norm__weight=torch.ones(64))
    _, model = build_skeleton(folder)
    with pytest.raises(QuantrustError, match=rf"{NORM} and model\.norm\.weight are both {NORM} of the model"):
        stored_tensors(folder, model)


def test_of_tied_tensors_one_is_enough_whichever_it_is(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    head, embedding = "lm_head.weight", "model.language_model.embed_tokens.weight"
    _, model = build_skeleton(folder)
    assert {head, embedding} <= stored_tensors(folder, model).keys()
    weight = load_file(folder / SHARDS[0])[head]
    change(folder, SHARDS[0], lm_head__weight=None)
    assert head not in stored_tensors(folder, model)
    change(folder, SHARDS[0], lm_head__weight=weight, model__language_model__embed_tokens__weight=None)
    assert embedding not in stored_tensors(folder, model)
    change(folder, SHARDS[0], lm_head__weight=None)
    refused(folder, rf"2 missing keys in the weights \({head}, {embedding}\)")
