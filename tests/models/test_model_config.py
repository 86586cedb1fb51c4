"""What a config.json says of how a model runs is not read, at whatever depth it stands: the study's settings decide."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageTextToText

from quantrust.errors import QuantrustError
from quantrust.models.loading import load_model
from quantrust.models.model_config import attention_of
from quantrust.models.model_folder import prepare_model
from quantrust.models.skeleton import build_skeleton
from tiny import merged

FAMILIES = ["qwen2_vl", "idefics3"]
PLACES = ["top", "text_config", "vision_config"]
# What a published config may hold of the run that wrote it, and what the study asks for instead.
SPELLINGS = [
    ("_attn_implementation", "eager"),
    ("attn_implementation", "eager"),
    ("_attn_implementation", "flash_attention_2"),
    ("attn_implementation", "flash_attention_2"),
    ("_attn_implementation", "someone/kernels"),
    ("_attn_implementation", {"": "eager", "text_config": "eager", "vision_config": "eager"}),
    ("_attn_implementation_internal", "eager"),
    ("dtype", "float16"),
    ("torch_dtype", "float16"),
    ("dtype", "zz"),
    ("output_attentions", True),
    ("output_hidden_states", True),
    ("return_dict", False),
    ("use_cache", False),
    ("quantization_config", {"quant_method": "gptq", "bits": 4}),
    ("configuration_files", ["config.4.0.0.json"]),
]


@pytest.fixture
def written(model_folders, tmp_path):
    """Return a function that copies a model folder with keys added to its config.json, at one place or at all."""

    def write(family: str, keys: dict, places: list[str] = PLACES) -> Path:
        folder = shutil.copytree(model_folders[family], tmp_path / "model", dirs_exist_ok=True)
        config = json.loads((folder / "config.json").read_text())
        for place in places:
            (config if place == "top" else config[place]).update(keys)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return write


def everything_read(folder: Path) -> list[torch.Tensor]:
    """Return what a whole model makes of a picture and a prompt."""
    family, model, processor = load_model(folder)
    picture = torch.arange(64 * 64 * 3, dtype=torch.uint8).reshape(64, 64, 3).numpy()
    with torch.inference_mode():
        images = family.encode_images(model, family.preprocess(processor, [picture]))
        inputs = family.language_inputs(model, processor, ["what color is the 3?"], images)
        hidden, _ = family.read_prompts(model, inputs)
        return [images[0].features, family.logits(model, hidden)]


@pytest.mark.parametrize("family_name", FAMILIES)
@pytest.mark.parametrize("place", PLACES)
def test_no_spelling_at_no_place_decides_how_a_model_runs(family_name, place, written):
    for key, value in SPELLINGS:
        folder = written(family_name, {key: value}, [place])
        for attention in ("sdpa", "eager"):
            with torch.device("meta"):
                _, model = build_skeleton(folder, attention)
            assert attention_of(model) == attention, (key, value)
            assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}, (key, value)


@pytest.mark.parametrize("family_name", FAMILIES)
def test_a_model_computes_the_same_whatever_its_config_says_of_the_run(family_name, written, model_folders):
    keys = dict(reversed(SPELLINGS))
    folder = written(family_name, keys)
    prepare_model(folder, folder.parent / "prepared", family_name)
    plain, found = everything_read(model_folders[family_name]), everything_read(folder.parent / "prepared")
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))


@pytest.mark.parametrize("family_name", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_model_is_the_one_that_the_library_loads(family_name, dtype, model_folders):
    _, model, _ = load_model(model_folders[family_name], dtype)
    theirs = AutoModelForImageTextToText.from_pretrained(model_folders[family_name], dtype=dtype)
    for ours, reference in ((model.state_dict(), theirs.state_dict()), (model.named_buffers(), theirs.named_buffers())):
        ours, reference = dict(ours), dict(reference)
        assert ours.keys() == reference.keys()
        assert all(torch.equal(ours[name], reference[name]) for name in ours)


def test_several_attentions_of_one_model_are_all_named(model_folders):
    family, model = build_skeleton(model_folders["qwen2_vl"])
    model.get_submodule(family.tower).set_attn_implementation("eager")
    assert attention_of(model) == "eager, sdpa"


def test_a_model_that_the_library_runs_otherwise_than_asked_is_refused(model_folders, monkeypatch):
    monkeypatch.setattr(
        "transformers.PreTrainedModel._check_and_adjust_attn_implementation", lambda *args, **kwargs: "eager"
    )
    with pytest.raises(QuantrustError, match=r"runs this model with the attention eager, not with sdpa"):
        build_skeleton(model_folders["idefics3"])


@pytest.mark.parametrize("family_name", FAMILIES)
@pytest.mark.parametrize(
    "change",
    [
        {"tie_word_embeddings": "yes"},
        {"text_config": []},
        {"text_config": {"hidden_act": "zz"}},
        {"rope_scaling": 3},
        {"id2label": 3},
    ],
)
def test_a_config_that_describes_no_model_is_named(family_name, change, model_folders, tmp_path):
    folder = shutil.copytree(model_folders[family_name], tmp_path / "model")
    config = merged(json.loads((folder / "config.json").read_text()), change)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(QuantrustError, match=r"model/config\.json: describes no \w+ model \(.*\); get the file again"):
        build_skeleton(folder)


@pytest.mark.parametrize("key", ["num_attention_heads", "num_hidden_layers", "hidden_size"])
@pytest.mark.parametrize("value", [0, -1, 10**15, float("inf"), float("nan")])
def test_a_number_that_no_model_has_is_named(key, value, model_folders, tmp_path):
    folder = shutil.copytree(model_folders["idefics3"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"][key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(QuantrustError, match=rf"model/config\.json: text_config\.{key} is {value}"):
        build_skeleton(folder)
