"""Model folders as a study uses them: linked or copied, checked, and with the processor and template of the config."""

import errno
import json
import logging
import shutil
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from quantrust.artifacts.folder_record import RECORD, check_folder
from quantrust.errors import QuantrustError
from quantrust.models.loading import family_of, load_family
from quantrust.models.model_folder import prepare_model
from quantrust.models.processor_settings import processor_keys, unknown_settings
from quantrust.named_modules import FAMILIES, module_names


@pytest.fixture
def source(model_folders, tmp_path):
    """Return a function that copies a model folder."""

    def copy(family: str) -> Path:
        return shutil.copytree(model_folders[family], tmp_path / "published" / family)

    return copy


def tokens(folder: Path, width: int, height: int) -> int:
    """Count the image tokens of a picture of that size."""
    family = family_of(folder)
    processor = family.load_processor(str(folder))
    inputs = family.preprocess(processor, [Image.new("RGB", (width, height), "red")])
    return inputs.placeholders[0].count(family.image_token(processor))


def rewrite(path: Path, **changes: object) -> None:
    """Change keys of a JSON file; None takes a key out."""
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def refused(source: Path, out: Path, family: str, message: str, **settings: object) -> None:
    with pytest.raises(QuantrustError, match=message) as caught:
        prepare_model(source, out, family, **settings)
    assert "partial" not in str(caught.value) and "\n" not in str(caught.value)
    assert not out.exists() and not list(out.parent.glob("*.partial"))


def test_weights_are_linked_and_all_else_is_written(source, tmp_path):
    published = source("qwen2_vl")
    for name in ("README.md", "pytorch_model.bin", ".gitattributes"):
        (published / name).write_text("not read")
    prepare_model(published, tmp_path / "out", "qwen2_vl")
    check_folder(tmp_path / "out")
    taken = {path.name for path in (tmp_path / "out").iterdir()} - {RECORD}
    assert {path.name for path in published.iterdir()} - taken == {"README.md", "pytorch_model.bin", ".gitattributes"}
    for path in (tmp_path / "out" / name for name in taken):
        assert path.read_bytes() == (published / path.name).read_bytes()
        assert path.samefile(published / path.name) == (path.suffix == ".safetensors")


def test_what_is_left_aside_is_said_in_a_line(source, tmp_path, caplog):
    published = source("qwen2_vl")
    caplog.set_level(logging.INFO)
    prepare_model(published, tmp_path / "out", "qwen2_vl")
    assert not caplog.messages
    (published / "pytorch_model.bin").write_text("of before")
    config = json.loads((published / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    config["text_config"]["_attn_implementation"] = "eager"
    (published / "config.json").write_text(json.dumps(config))
    prepare_model(published, tmp_path / "out", "qwen2_vl")
    assert caplog.messages == [
        f"{published}: not read, because the weights lie in other files: pytorch_model.bin",
        f"{published}/config.json: not read, because the study decides: text_config._attn_implementation, "
        "quantization_config",
    ]


def test_weights_that_are_not_finite_are_refused(source, tmp_path):
    published = source("idefics3")
    tensors = load_file(published / "model.safetensors")
    tensors["lm_head.weight"][3, 4] = float("nan")
    save_file(tensors, published / "model.safetensors")
    message = r"published/idefics3/model\.safetensors: lm_head\.weight holds NaN or infinite values; get the file again"
    refused(published, tmp_path / "out", "idefics3", message)


def test_a_link_of_the_hub_s_cache_is_followed(source, tmp_path):
    published = source("qwen2_vl")
    blob = tmp_path / "blob"
    (published / "model.safetensors").rename(blob)
    (published / "model.safetensors").symlink_to(blob)
    prepare_model(published, tmp_path / "out", "qwen2_vl")
    assert not (tmp_path / "out" / "model.safetensors").is_symlink()
    assert (tmp_path / "out" / "model.safetensors").samefile(blob)


def test_where_no_link_is_possible_weights_are_copied(source, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("quantrust.models.model_folder.os.link", refuse)
    published = source("idefics3")
    prepare_model(published, tmp_path / "out", "idefics3")
    copy = tmp_path / "out" / "model.safetensors"
    assert copy.read_bytes() == (published / copy.name).read_bytes()
    assert not copy.samefile(published / copy.name)


@pytest.mark.parametrize("layout", ["old", "new", "nested"])
def test_pixels_of_qwen2_vl_take_effect_in_every_layout_that_was_published(layout, source, tmp_path):
    """One token is 16 x 16 pixels here. A picture of 128 x 64 is 32 tokens as it is."""
    published = source("qwen2_vl")
    path = published / "preprocessor_config.json"
    if layout == "old":
        rewrite(path, min_pixels=16 * 16, max_pixels=1 << 20)
    else:
        rewrite(path, min_pixels=None, max_pixels=None, size={"shortest_edge": 16 * 16, "longest_edge": 1 << 20})
    if layout == "nested":
        described = json.loads(path.read_text())
        path.unlink()
        (published / "processor_config.json").write_text(json.dumps({"image_processor": described}))
    expected = {"none": 32, "most": 8, "least": 72}
    settings = {"none": None, "most": {"max_pixels": 8 * 16 * 16}, "least": {"min_pixels": 72 * 16 * 16}}
    for name, processor in settings.items():
        prepare_model(published, tmp_path / name, "qwen2_vl", processor=processor)
        assert tokens(tmp_path / name, 128, 64) == expected[name]


def test_splitting_and_size_of_idefics3_take_effect(source, tmp_path):
    """A tile is 64 x 64 pixels and 16 tokens here."""
    published = source("idefics3")
    settings = {
        "whole": {"size": {"longest_edge": 128}},
        "split": {"do_image_splitting": True, "size": {"longest_edge": 128}},
        "larger": {"do_image_splitting": True, "size": {"longest_edge": 256}},
    }
    # without splitting the whole picture is one tile; with it, beside the tiles of 128 x 64, or of 256 x 128
    expected = {"whole": 16, "split": 16 * (2 + 1), "larger": 16 * (8 + 1)}
    for name, processor in settings.items():
        prepare_model(published, tmp_path / name, "idefics3", processor=processor)
        assert tokens(tmp_path / name, 200, 100) == expected[name]
        recorded = json.loads((tmp_path / name / "preprocessor_config.json").read_text())
        assert recorded["size"] == processor["size"]
        assert recorded["max_image_size"] == {"longest_edge": 64}


def test_a_chat_template_of_the_config_goes_before_the_folder_s(source, tmp_path):
    published = source("idefics3")
    template = tmp_path / "plain.jinja"
    template.write_text("Look: <image>{{ messages[0]['content'][1]['text'] }} So:")
    prepare_model(published, tmp_path / "out", "idefics3", chat_template=template)
    family = load_family("idefics3")
    frame = family.prompt_frame(family.load_processor(str(tmp_path / "out")), "{question} Be brief.")
    assert frame == ("Look: <image>", " Be brief. So:")
    # no brace but those of {question} means anything
    frame = family.prompt_frame(family.load_processor(str(tmp_path / "out")), 'As {"answer": ..}: {question} {}')
    assert frame == ('Look: <image>As {"answer": ..}: ', " {} So:")
    assert (published / "chat_template.jinja").read_text() != template.read_text()


@pytest.mark.parametrize("times", [0, 2])
def test_a_chat_template_must_show_the_question_once(times, source, tmp_path):
    template = tmp_path / "other.jinja"
    template.write_text("Look: <image>" + "{{ messages[0]['content'][1]['text'] }}" * times)
    message = rf"published/idefics3: the chat template .Look: .* shows the user's text {times} times; expected once"
    refused(source("idefics3"), tmp_path / "out", "idefics3", message, chat_template=template)


def test_what_is_wrong_with_a_folder_is_said_of_the_folder_that_was_given(source, tmp_path):
    for name, message in [
        ("config.json", r"published/qwen2_vl/config\.json is missing"),
        ("model.safetensors", r"published/qwen2_vl holds no safetensors file"),
        ("tokenizer.json", r"published/qwen2_vl/tokenizer\.json is missing"),
        ("preprocessor_config.json", r"published/qwen2_vl/preprocessor_config\.json is missing"),
        ("chat_template.jinja", r"published/qwen2_vl holds no chat template"),
    ]:
        published = source("qwen2_vl")
        (published / name).unlink()
        refused(published, tmp_path / "out", "qwen2_vl", message)
        shutil.rmtree(published)


@pytest.mark.parametrize(
    "name",
    ["config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"],
)
def test_a_file_that_is_cut_short_is_named(name, source, tmp_path):
    published = source("idefics3")
    (published / name).write_text((published / name).read_text()[:100])
    refused(published, tmp_path / "out", "idefics3", rf"published/idefics3/{name}: is not valid JSON at line ")


def test_a_file_that_holds_something_else_is_named(source, tmp_path):
    published = source("idefics3")
    (published / "config.json").write_text("[]")
    message = r"published/idefics3/config\.json holds a list; expected an object: get the file again"
    refused(published, tmp_path / "out", "idefics3", message)
    shutil.rmtree(published)
    published = source("idefics3")
    (published / "tokenizer.json").write_text("{}")
    refused(
        published, tmp_path / "out", "idefics3", r"published/idefics3/tokenizer\.json: no tokenizer can be made of it"
    )


def test_weights_of_another_shape_than_the_config_s_are_refused(source, tmp_path):
    published = source("idefics3")
    config = json.loads((published / "config.json").read_text())
    config["text_config"]["intermediate_size"] += 1
    (published / "config.json").write_text(json.dumps(config))
    refused(published, tmp_path / "out", "idefics3", r"published/idefics3: 9 mismatched keys in the weights")


def test_settings_that_contradict_one_another_are_refused(source, tmp_path):
    message = r"qwen2_vl: the image processor scales pictures to min_pixels 9,000 at least and max_pixels 4,096 at most"
    refused(source("qwen2_vl"), tmp_path / "out", "qwen2_vl", message, processor={"min_pixels": 9000})


def test_a_setting_that_the_family_does_not_have_is_refused(source, tmp_path):
    message = r"unknown setting size\.shortest_edge of the processor of idefics3; allowed: do_image_splitting, size"
    settings = {"size": {"longest_edge": 64, "shortest_edge": 3}}
    refused(source("idefics3"), tmp_path / "out", "idefics3", message, processor=settings)


def test_settings_are_read_from_a_family_s_source_as_the_family_has_them():
    found = {name: processor_keys(name) for name in module_names(FAMILIES)}
    assert found == {name: load_family(name).processor_keys for name in found}
    # These scale every picture to one size, or cut it in one way, so that nothing can be set.
    nothing = {"llava", "llava_onevision", "paligemma", "blip_2", "blip_2_retrieval"}
    assert {name for name, keys in found.items() if not keys} == nothing
    assert list(unknown_settings("qwen2_vl", {"max_pixels": 1})) == []
    assert len(list(unknown_settings("qwen2_vl", {"do_image_splitting": True, "size": {"longest_edge": 1}}))) == 2
