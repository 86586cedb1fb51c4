"""Calibration tables: what is drawn, what is recorded, what is refused."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from quantrust.errors import QuantrustError
from quantrust.models.family import Role
from quantrust.models.loading import load_model
from quantrust.quantization import calibration_samples
from quantrust.quantization.calibration_samples import (
    CALIBRATION_SCHEMA,
    build_calibration_table,
    check_calibration,
    language_batches,
    vision_batches,
)

FAMILIES = ["qwen2_vl", "idefics3"]


def build(model_folder, captions, **changes):
    arguments = {"samples": 4, "seed": 0} | changes
    return build_calibration_table(model_folder, captions / "captions.json", captions / "images", **arguments)


@pytest.mark.parametrize("family_name", FAMILIES)
def test_tokens_and_roles_spell_the_pair(family_name, model_folders, calibration_tables):
    table = calibration_tables[family_name]
    assert table.schema == CALIBRATION_SCHEMA and len(table) == 5
    family, _, processor = load_model(model_folders[family_name])
    row = table.row(0, named=True)
    spelt = {
        role: processor.tokenizer.decode([t for t, r in zip(row["token_ids"], row["roles"], strict=True) if r == role])
        for role in Role
    }
    assert spelt[Role.ANSWER] == family.answer_prefix + row["answer"] + family.end_token(processor)
    assert spelt[Role.QUESTION].strip() == row["prompt"] == "what is there?"
    assert spelt[Role.IMAGE] == family.image_token(processor) * row["roles"].count(Role.IMAGE) != ""
    assert spelt[Role.PAD] == ""


def test_draws_depend_on_the_seed_alone(model_folders, captions):
    folder = model_folders["qwen2_vl"]
    first, again, other = (build(folder, captions, samples=3, seed=seed) for seed in (0, 0, 5))
    assert first.equals(again)
    assert first["sample_id"].to_list() != other["sample_id"].to_list()
    assert first["sample_id"].is_unique().all() and first["sample_id"].is_sorted()
    assert first["image"][0] == (captions / "images" / f"{first['image_id'][0]}.png").as_posix()


def test_wide_batches_are_split_into_samples_without_padding(model_folders, calibration_tables, monkeypatch):
    family, model, processor = load_model(model_folders["qwen2_vl"])
    table = calibration_tables["qwen2_vl"]
    encoded = [im for inputs in vision_batches(family, processor, table) for im in family.encode_images(model, inputs)]
    (whole,) = language_batches(family, model, processor, table, encoded)
    monkeypatch.setattr(calibration_samples, "BATCH_STATES", 2 * whole.inputs_embeds[0].numel())
    pairs = list(language_batches(family, model, processor, table, encoded))
    assert [len(inputs.roles) for inputs in pairs] == [2, 2, 1]
    monkeypatch.setattr(calibration_samples, "BATCH_STATES", 1)
    alone = language_batches(family, model, processor, table, encoded)
    for row, inputs in enumerate(alone):
        real = whole.roles[row] != Role.PAD
        assert inputs.attention_mask.all() and inputs.token_ids.shape == (1, int(real.sum()))
        assert inputs.token_ids[0].tolist() == whole.token_ids[row, real].tolist()
        assert inputs.roles[0].tolist() == whole.roles[row, real].tolist()
        assert inputs.inputs_embeds[0].equal(whole.inputs_embeds[row, real])
        assert inputs.position_ids[:, 0].equal(whole.position_ids[:, row, real])


@pytest.mark.parametrize("family_name", FAMILIES)
def test_batches_reproduce_the_table(family_name, model_folders, calibration_tables):
    family, model, processor = load_model(model_folders[family_name])
    table = calibration_tables[family_name]
    images = [
        image for inputs in vision_batches(family, processor, table) for image in family.encode_images(model, inputs)
    ]
    (batch,) = language_batches(family, model, processor, table, images)
    assert batch.roles.shape[0] == 5
    other = table.with_columns(answer=pl.col("answer") + " yes")
    with pytest.raises(QuantrustError, match="has other tokens than when the table was built"):
        list(language_batches(family, model, processor, other, images))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": None}, r"record 0 \(id 'pair-0'\) has no image"),
        ({"image": []}, r"record 0 \(id 'pair-0'\) has no image"),
        ({"image": ["a.png", "b.png"]}, r"record 0 \(id 'pair-0'\) has 2 images; expected the path of one image"),
        ({"image": [7]}, r"record 0 \(id 'pair-0'\) has the image \[7\]; expected the path of one image"),
        (
            {"image": {"path": "a.png"}},
            r"record 0 \(id 'pair-0'\) has the image \{'path': 'a.png'\}; expected the path",
        ),
        ({"image": "absent.png"}, r"sample 'pair-0': image \S+/absent\.png cannot be used: no such file; .*skip"),
        ({"conversations": [{"from": "gpt", "value": "a"}]}, "does not begin with a turn from human and one from gpt"),
        (
            {"conversations": [{"from": "human"}, {"from": "gpt", "value": "a"}]},
            r"record 0 \(id 'pair-0'\): expected a string in \"value\", got None",
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "\ud800"}]},
            r"record 0 \(id 'pair-0'\): \"value\" is .*lone surrogate",
        ),
        ({"image": "\ud800.png"}, r"record 0 \(id 'pair-0'\): \"image\" is .*lone surrogate"),
        ({"id": ["pair"]}, r"record 0: expected an integer or a string in \"id\", got \['pair'\]"),
        ({"conversations": "human"}, "does not begin with a turn from human and one from gpt"),
        (
            {"conversations": [{"from": "human", "value": "<image>\nis it red?"}, {"from": "gpt", "value": "yes"}]},
            "'pair-0'.* answer tokens: a short answer",
        ),
    ],
)
def test_unfit_records_are_refused_by_name(change, message, model_folders, captions, tmp_path):
    records = json.loads((captions / "captions.json").read_text())
    records[0] |= change
    (tmp_path / "captions.json").write_text(json.dumps(records))
    with pytest.raises(QuantrustError, match=message):
        build_calibration_table(
            model_folders["qwen2_vl"], tmp_path / "captions.json", captions / "images", samples=len(records), seed=0
        )


def test_a_list_of_one_image_is_that_image(model_folders, captions, tmp_path):
    folder = model_folders["qwen2_vl"]
    records = json.loads((captions / "captions.json").read_text())
    for record in records:
        record["image"] = [record["image"]]
    (tmp_path / "captions.json").write_text(json.dumps(records))
    listed = build_calibration_table(folder, tmp_path / "captions.json", captions / "images", samples=4, seed=0)
    assert listed.equals(build(folder, captions))
    asked = [listed["image"][0]]
    with pytest.raises(QuantrustError, match="holds 6 records, 6 were asked for and 5 may be drawn"):
        build_calibration_table(
            folder, tmp_path / "captions.json", captions / "images", samples=6, seed=0, asked_about=asked
        )


@pytest.fixture
def with_bad_images(captions, tmp_path):
    """Copy captions and images, of which two of six are spoilt; returns the folder and the two samples."""
    shutil.copytree(captions, tmp_path / "pairs")
    records = json.loads((tmp_path / "pairs" / "captions.json").read_text())
    Image.new("RGB", (1, 300)).save(tmp_path / "pairs" / "images" / records[1]["image"])
    (tmp_path / "pairs" / "images" / records[4]["image"]).unlink()
    return tmp_path / "pairs", [records[1]["id"], records[4]["id"]]


def test_an_image_that_is_too_thin_for_the_model_is_named_with_its_record(model_folders, with_bad_images):
    folder, (thin, _) = with_bad_images
    with pytest.raises(
        QuantrustError, match=rf"^calibration sample '{thin}': image \S+\.png cannot be used: too thin: 1 x 300"
    ):
        build(model_folders["qwen2_vl"], folder, samples=6)


@pytest.mark.parametrize(("family_name", "bad"), [("qwen2_vl", 2), ("idefics3", 1)])
def test_other_records_are_drawn_for_those_whose_images_are_skipped(
    family_name, bad, model_folders, captions, with_bad_images, caplog
):
    """An image that one model cannot read calibrates another one that can."""
    folder, spoilt = with_bad_images
    spoilt = spoilt[2 - bad :]
    for seed in range(6):
        whole = build(model_folders[family_name], captions, samples=4, seed=seed)
        caplog.clear()
        table = build(model_folders[family_name], folder, samples=4, seed=seed, on_bad_image="skip")
        kept = [sample for sample in whole["sample_id"] if sample not in spoilt]
        assert set(kept) <= set(table["sample_id"]) and not set(spoilt) & set(table["sample_id"])
        assert len(table) == 4 and table["sample_id"].is_unique().all() and table["sample_id"].is_sorted()
        assert len(caplog.messages) >= 4 - len(kept)
        assert all("cannot be used" in message for message in caplog.messages)
    with pytest.raises(
        QuantrustError, match=rf"^only {6 - bad} of 6 records that may be drawn have an image that can be used"
    ):
        build(model_folders[family_name], folder, samples=6 - bad + 1, on_bad_image="skip")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "is nested too deeply"),
        ('[{"id": 1', "is not valid JSON at line 1"),
        ('{"id": 1}', "holds a dict, expected the list of the ShareGPT4V format"),
        ("[]", "holds 0 records"),
        ("[3]", "record 0 lacks id or conversations"),
    ],
)
def test_a_captions_file_that_holds_something_else_is_named(content, message, model_folders, captions, tmp_path):
    (tmp_path / "captions.json").write_text(content)
    with pytest.raises(QuantrustError, match=rf"captions\.json:? {message}"):
        build_calibration_table(
            model_folders["qwen2_vl"], tmp_path / "captions.json", captions / "images", samples=1, seed=0
        )


@pytest.mark.parametrize("samples", [0, 7])
def test_more_samples_than_there_are_is_an_error(samples, model_folders, captions):
    with pytest.raises(QuantrustError, match=f"holds 6 records, {samples} were asked for"):
        build(model_folders["qwen2_vl"], captions, samples=samples)


def test_text_only_empty_and_foreign_tables_are_refused(calibration_tables):
    table = calibration_tables["qwen2_vl"]
    text_only = table.with_columns(
        roles=pl.col("roles").list.eval(pl.element().replace({int(Role.IMAGE): int(Role.TEXT)})).cast(pl.List(pl.Int8))
    )
    with pytest.raises(QuantrustError, match="0 image tokens: a text-only sample"):
        check_calibration(text_only)
    with pytest.raises(QuantrustError, match="is empty"):
        check_calibration(table.clear())
    with pytest.raises(QuantrustError, match=r"expected .*roles.* build it again"):
        check_calibration(table.drop("roles"))


@pytest.fixture
def collections(captions, tmp_path):
    """Write a captions file over two collections of images; returns it, its folder and what its records show."""
    records = json.loads((captions / "captions.json").read_text())
    paths = [f"coco/train2017/{number:012d}.png" for number in (11, 22, 33)] + [f"sam/{k}.png" for k in range(3)]
    for record, path in zip(records, paths, strict=True):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes((captions / "images" / record["image"]).read_bytes())
        record["image"] = path
    (tmp_path / "captions.json").write_text(json.dumps(records))
    return tmp_path


def drawn(model_folders, folder, samples, **options):
    table = build_calibration_table(
        model_folders["idefics3"], folder / "captions.json", folder, samples=samples, seed=0, **options
    )
    return [Path(path).relative_to(folder).as_posix() for path in table["image"]]


def test_one_collection_of_a_captions_file_can_be_chosen(model_folders, collections):
    assert drawn(model_folders, collections, 3, only="sam/") == ["sam/0.png", "sam/1.png", "sam/2.png"]


def test_a_picture_that_questions_are_asked_about_is_never_drawn(model_folders, collections):
    """val2014 and train2017 name the same picture of COCO differently; others are told by the names of their files."""
    asked = ["images/val2014/COCO_val2014_000000000022.jpg", "elsewhere/1.png", "COCO_val2014_000000000099.jpg"]
    left = ["coco/train2017/000000000011.png", "coco/train2017/000000000033.png", "sam/0.png", "sam/2.png"]
    assert drawn(model_folders, collections, 4, asked_about=asked) == left
    with pytest.raises(QuantrustError, match="holds 6 records, 5 were asked for and 4 may be drawn"):
        drawn(model_folders, collections, 5, asked_about=asked)
