"""Weights of a model folder: every shard, key and shape is found, or named."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from quantrust.embedded.stress import stress_model
from quantrust.errors import QuantrustError
from quantrust.files import sha256
from quantrust.models import weights
from quantrust.models.loading import load_model
from quantrust.models.model_folder import prepare_model
from quantrust.models.skeleton import build_skeleton
from quantrust.models.weights import check_finite, other_weights, stored_tensors, weight_files
from quantrust.quantization.quantize import quantize_model

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
NORM = "model.language_model.norm.weight"
HEAD, EMBEDDING = "lm_head.weight", "model.language_model.embed_tokens.weight"


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
    refused(folder, rf"{SHARDS[1]} is not a complete safetensors file \(")


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
    (folder / "model.safetensors.index.json").write_text("[" * 100_000)
    refused(folder, r"index\.json: is nested too deeply")
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


def tie(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))


def test_of_tied_tensors_one_is_enough_whichever_it_is(folder):
    tie(folder)
    _, model = build_skeleton(folder)
    weight = load_file(folder / SHARDS[0])[EMBEDDING]
    change(folder, SHARDS[0], lm_head__weight=None)
    for shard in SHARDS:
        change(folder, shard, lm_head__weight=weight.clone())
        assert {HEAD, EMBEDDING} <= stored_tensors(folder, model).keys()
        change(folder, shard, lm_head__weight=None)
    assert HEAD not in stored_tensors(folder, model)
    change(folder, SHARDS[0], lm_head__weight=weight, model__language_model__embed_tokens__weight=None)
    assert EMBEDDING not in stored_tensors(folder, model)
    change(folder, SHARDS[0], lm_head__weight=None)
    refused(folder, rf"2 missing keys in the weights \({HEAD}, {EMBEDDING}\)")


@pytest.mark.parametrize("shard", SHARDS)
def test_tied_tensors_that_differ_are_both_named_by_every_loader(shard, folder, tmp_path):
    """As they do in a merged adapter, or in one number of the last row."""
    tie(folder)
    head = load_file(folder / SHARDS[0])[EMBEDDING]
    head[-1, -1] = torch.nextafter(head[-1, -1], torch.tensor(9.0))
    change(folder, SHARDS[0], lm_head__weight=None)
    change(folder, shard, lm_head__weight=head)
    message = rf"embed_tokens\.weight \(in {SHARDS[0]}\) and {HEAD} \(in {shard}\) differ, but config\.json ties them"
    refused(folder, message)
    (folder / "training.json").write_text(
        json.dumps({"files": {path.name: sha256(path) for path in folder.iterdir() if path.name != "training.json"}})
    )
    for load in (
        lambda out: load_model(folder),
        lambda out: quantize_model(folder, "bf16", None, out),
        lambda out: stress_model(folder, out, share=0.5, factor=2, seed=0),
        lambda out: prepare_model(folder, out, "qwen2_vl"),
    ):
        with pytest.raises(QuantrustError, match=message):
            load(tmp_path / "out")
        assert not (tmp_path / "out").exists()
    (folder / "training.json").unlink()
    with pytest.raises(QuantrustError, match=message):
        prepare_model(folder, tmp_path / "out", "qwen2_vl")


def test_tied_tensors_that_differ_are_two_once_the_config_says_so_as_the_library_takes_them(folder):
    tie(folder)
    theirs = AutoModelForImageTextToText.from_pretrained(folder).state_dict()
    assert not torch.equal(theirs[HEAD], theirs[EMBEDDING])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    _, model, _ = load_model(folder)
    ours = model.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_that_is_not_merged_is_refused(name, folder):
    (folder / name).write_bytes(b"{}")
    refused(
        folder, rf"{folder}/{re.escape(name)} is of an adapter that is not merged into the weights, .*merge the two"
    )


def test_two_models_in_one_folder_are_refused(folder, model_folders):
    shutil.copyfile(model_folders["qwen2_vl"] / "model.safetensors", folder / "model.safetensors")
    refused(
        folder, rf"holds model\.safetensors, and .*index\.json, which names other files \({SHARDS[0]}, {SHARDS[1]}\)"
    )
    write_index(folder, dict.fromkeys(places(folder), "model.safetensors"))
    _, model = build_skeleton(folder)
    assert {at.path.name for at in stored_tensors(folder, model).values()} == {"model.safetensors"}


def test_weights_that_the_config_names_elsewhere_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    for named in ("model.safetensors.index.json", "other.safetensors"):
        (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": named}))
        _, model = build_skeleton(folder)
        if named == "other.safetensors":
            refused(
                folder, r"names 'other\.safetensors' as its weights .*, but the folder has model\.safetensors\.index"
            )
        else:
            assert stored_tensors(folder, model)


def test_files_that_look_like_weights_and_are_not_read_are_listed(folder):
    for name in ("pytorch_model.bin", "model-00003-of-00002.safetensors", "notes.txt", "consolidated.00.pth"):
        (folder / name).write_bytes(b"")
    assert other_weights(folder, weight_files(folder)) == [
        "consolidated.00.pth",
        "model-00003-of-00002.safetensors",
        "pytorch_model.bin",
    ]


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.float8_e4m3fn])
def test_weights_that_are_quantized_already_are_refused(dtype, folder):
    change(folder, SHARDS[1], model__language_model__norm__weight=torch.ones(64).to(dtype))
    refused(folder, rf"{SHARDS[1]}: {NORM} is stored as \w+, expected F64, F32, F16, BF16: these weights are quantized")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_weight_that_is_not_finite_is_named_wherever_it_stands(value, dtype, folder, monkeypatch):
    monkeypatch.setattr(weights, "NUMBERS_AT_ONCE", 1000)
    _, model = build_skeleton(folder)
    check_finite(stored_tensors(folder, model))
    head = load_file(folder / SHARDS[0])[HEAD].to(dtype)
    head[-1, -1] = value
    change(folder, SHARDS[0], lm_head__weight=head)
    with pytest.raises(QuantrustError, match=rf"{SHARDS[0]}: {HEAD} holds NaN or infinite values; get the file again"):
        check_finite(stored_tensors(folder, model))


def test_weights_that_cannot_be_read_are_named(model_folders, monkeypatch):
    """Whoever runs the tests may read everything: the system is made to refuse."""
    opened = open

    def refuse(path, *how, **more):
        if str(path).endswith(".safetensors"):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *how, **more)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(QuantrustError, match=r"model\.safetensors cannot be read \(Permission denied\); make it"):
        weight_files(model_folders["qwen2_vl"])
