"""Family adapters: the component map matches the modules, prompts match the processors', loading is strict."""

import json
import re
import shutil
from collections import Counter

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from quantrust.artifacts.folder_record import RECORD
from quantrust.digest import SCRIPTS
from quantrust.errors import QuantrustError
from quantrust.files import sha256
from quantrust.models.family import Role
from quantrust.models.loading import load_model
from quantrust.models.model_folder import prepare_model
from quantrust.models.processor_settings import published_image_tokens

FAMILIES = ["qwen2_vl", "idefics3"]


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request, model_folders):
    return load_model(model_folders[request.param])


def test_the_tokens_of_an_image_are_known_from_the_source(loaded):
    family, _, processor = loaded
    tokens = published_image_tokens(family.name)
    assert tokens[0] == family.image_token(processor)
    assert {*tokens, family.end_token(processor)} <= {*family.reserved_tokens(processor)}


def test_the_tokens_that_no_text_may_hold_are_looked_up_once_for_a_processor(model_folders, monkeypatch):
    family, _, processor = load_model(model_folders["qwen2_vl"])
    first = family.reserved_tokens(processor)
    monkeypatch.setattr(type(processor.tokenizer), "added_tokens_decoder", None)
    assert family.reserved_tokens(processor) == first
    with pytest.raises(QuantrustError, match=r"'a <\|im_end\|>' holds '<\|im_end\|>'"):
        family.refuse_reserved(processor, ["plain", "a <|im_end|>"])


def test_every_matrix_is_in_one_component(loaded):
    family, model, _ = loaded
    layers = family.layers(model)
    named = {
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Embedding, nn.Conv2d, nn.Conv3d))
    }
    assert {layer.name for layer in layers} == named
    counts = Counter((layer.component, layer.kind) for layer in layers)
    # Three decoder blocks of seven linears each; one embedding and one head.
    assert counts["language", "linear"] == 21
    assert counts["embedding", "embedding"] == counts["head", "linear"] == 1
    assert counts["connector", "linear"] == (2 if family.name == "qwen2_vl" else 1)
    assert counts["vision", "linear"] == 2 * (4 if family.name == "qwen2_vl" else 6)
    assert counts["vision", "conv"] == 1
    types = Counter(layer.layer_type for layer in layers if layer.component == "language")
    assert types == {"attention": 12, "mlp": 9}


class ScaledEmbedding(nn.Embedding):
    """As some families multiply their token embedding."""


def test_subclasses_of_layers_are_layers_too(model_folders):
    family, model, _ = load_model(model_folders["qwen2_vl"])
    model.get_submodule(family.embedding).__class__ = ScaledEmbedding
    assert [layer.name for layer in family.layers(model) if layer.kind == "embedding"] == [family.embedding]


def test_a_layer_of_a_block_that_is_of_no_type_is_refused(model_folders):
    family, model, _ = load_model(model_folders["idefics3"])
    block = family.blocks(model, "language")[1]
    model.get_submodule(block).add_module("router", nn.Linear(2, 2))
    with pytest.raises(
        QuantrustError, match=rf"{block}\.router \(Linear\) lies in a block, but the adapter of idefics3"
    ):
        family.layers(model)


def test_groups_cover_each_linear_of_a_block_once_and_fit_what_feeds_them(loaded):
    family, model, _ = loaded
    for component in ("vision", "connector", "language"):
        for block in family.blocks(model, component):
            groups = family.scale_groups(model, block)
            grouped = [name for group in groups for name in group.linears]
            linears = [
                f"{block}.{n}" for n, m in model.get_submodule(block).named_modules() if isinstance(m, nn.Linear)
            ]
            assert sorted(grouped) == sorted(linears)
            for group in groups:
                widths = {model.get_submodule(name).in_features for name in group.linears}
                assert len(widths) == 1
                if group.previous is not None:
                    channels = model.get_submodule(group.previous).weight.shape[0] - group.offset
                    assert channels * group.repeats == widths.pop()


def test_grouped_query_attention_leaves_the_output_projection_unscaled(loaded):
    family, model, _ = loaded
    groups = family.scale_groups(model, family.blocks(model, "language")[0])
    (output,) = [group for group in groups if group.linears[0].endswith("o_proj")]
    assert output.previous is None


def test_prompts_are_those_of_the_processor(loaded, pictures):
    family, model, processor = loaded
    question = "what color is the red circle?"
    with torch.no_grad():
        images = family.encode_images(model, family.preprocess(processor, pictures[:1]))
        inputs = family.language_inputs(model, processor, [question], images)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    expected = processor(text=[text], images=[[pictures[0]]] if family.name == "idefics3" else [pictures[0]])
    assert inputs.token_ids[0].tolist() == expected["input_ids"][0]


def test_features_enter_the_prompt_as_the_library_merges_them(loaded, pictures):
    family, model, processor = loaded
    vision = family.preprocess(processor, pictures[:2])
    with torch.no_grad():
        images = family.encode_images(model, vision)
        inputs = family.language_inputs(model, processor, ["is it?", "what color is it?"], images)
        hidden, _ = family.read_prompts(model, inputs)
        ours = family.logits(model, hidden[:, -1])
        kwargs = {"mm_token_type_ids": (inputs.roles == Role.IMAGE).int()} if family.name == "qwen2_vl" else {}
        theirs = model(
            input_ids=inputs.token_ids, attention_mask=inputs.attention_mask.long(), **vision.tensors, **kwargs
        ).logits[:, -1]
    if family.name == "qwen2_vl":
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)
    else:
        # Called without positions, the library numbers left padding too; the unpadded row must agree all the same.
        torch.testing.assert_close(ours[1], theirs[1], atol=2e-5, rtol=2e-5)


def _copy(folder, target):
    shutil.copytree(folder, target)
    return target


@pytest.mark.parametrize("family_name", FAMILIES)
def test_loading_fails_on_missing_unexpected_and_misshapen_weights(family_name, model_folders, tmp_path):
    for number, (change, message) in enumerate(
        [
            (lambda t: t.pop("lm_head.weight"), "1 missing key in"),
            (lambda t: t.update({"model.extra.weight": torch.zeros(2)}), "1 unexpected key in"),
            (lambda t: t.update({"lm_head.weight": torch.zeros(3, 64)}), "1 mismatched key in"),
        ]
    ):
        folder = _copy(model_folders[family_name], tmp_path / str(number))
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(QuantrustError, match=message):
            load_model(folder)


def test_a_folder_that_lacks_a_part_is_refused_by_name(model_folders, tmp_path):
    for name, message in [
        ("config.json", "config.json is missing"),
        ("model.safetensors", "no safetensors file"),
        ("tokenizer.json", "tokenizer.json is missing"),
        ("chat_template.jinja", "no chat template"),
    ]:
        folder = _copy(model_folders["idefics3"], tmp_path / name)
        (folder / name).unlink()
        with pytest.raises(QuantrustError, match=message):
            load_model(folder)


def test_an_architecture_without_an_adapter_is_named(model_folders, tmp_path):
    folder = _copy(model_folders["qwen2_vl"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mllama"}))
    message = (
        r"config\.json: there is no adapter for models of type 'mllama'; supported: .*idefics3, .*qwen2_vl, .*\. "
        r"docs/families\.md shows how to write an adapter, one module, the shortest of \d\d lines$"
    )
    with pytest.raises(QuantrustError, match=message):
        load_model(folder)


def test_shipped_files_are_checked_against_their_digests(model_folders, tmp_path):
    source = _copy(model_folders["qwen2_vl"], tmp_path / "source")
    files = {path.name: sha256(path) for path in source.iterdir()}
    (source / "training.json").write_text(json.dumps({"files": files}))
    prepare_model(source, tmp_path / "good", "qwen2_vl")
    assert {path.name: sha256(path) for path in (tmp_path / "good").iterdir() if path.name != RECORD} == files
    with open(source / "model.safetensors", "r+b") as handle:
        handle.seek(-1, 2)
        last = handle.read(1)
        handle.seek(-1, 2)
        handle.write(bytes([last[0] ^ 1]))
    with pytest.raises(QuantrustError, match=r"model\.safetensors differs from the digest"):
        prepare_model(source, tmp_path / "bad", "qwen2_vl")
    assert not (tmp_path / "bad").exists()


def test_a_model_of_another_family_than_the_config_says_is_refused(model_folders, tmp_path):
    source = _copy(model_folders["qwen2_vl"], tmp_path / "source")
    files = {path.name: sha256(path) for path in source.iterdir()}
    (source / "training.json").write_text(json.dumps({"files": files}))
    with pytest.raises(QuantrustError, match=r"describes a 'qwen2_vl' model, but the config says .* 'idefics3'"):
        prepare_model(source, tmp_path / "out", "idefics3")
    assert not (tmp_path / "out").exists()


def test_a_model_folder_without_digests_is_copied_as_it_is(model_folders, tmp_path):
    source = model_folders["idefics3"]
    prepare_model(source, tmp_path / "out", "idefics3")
    (tmp_path / "out" / RECORD).unlink()
    assert {p.name: sha256(p) for p in (tmp_path / "out").iterdir()} == {p.name: sha256(p) for p in source.iterdir()}


def test_no_module_of_an_architecture_is_named_outside_the_adapters():
    package = SCRIPTS / "quantrust"
    spelled = re.compile(r"lm_head|self_attn|embed_tokens|language_model\.|\bmodel\.model\b|\.norm\b\(")
    found = {
        str(path.relative_to(package)): spelled.findall(path.read_text(encoding="utf-8"))
        for path in package.rglob("*.py")
        if not path.is_relative_to(package / "models" / "families")
    }
    assert {name: words for name, words in found.items() if words} == {}
