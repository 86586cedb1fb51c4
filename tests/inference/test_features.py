"""The whole dump: the same answers however the work is cut, each picture encoded once, and what stops it."""

import dataclasses
import json
import logging
import os
import shutil
import weakref

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from quantrust.artifacts.folder_record import write_record
from quantrust.artifacts.tables import write_table
from quantrust.errors import QuantrustError
from quantrust.inference import answering as answering_module
from quantrust.inference import features as features_module
from quantrust.inference.decoding import decode_greedily
from quantrust.inference.features import FeatureDumper, dump_features
from quantrust.inference.gathering import gather_features
from quantrust.inference.memory import Halving
from quantrust.inference.settings import DumpSettings
from quantrust.inference.sizes import features_bytes
from quantrust.models.family import Family
from quantrust.models.loading import family_of
from quantrust.quantization import linear as linear_module
from quantrust.quantization.quantize import quantize_model
from quantrust.tasks.cider import cider_d
from quantrust.tasks.task import load_task

BATCHED = DumpSettings(max_new_tokens=5, top_k=8, batch_size=5, images_per_batch=3, images_per_chunk=4)
SINGLE = DumpSettings(max_new_tokens=5, top_k=8, batch_size=1, images_per_batch=1, images_per_chunk=1)
STATES = ("image_state", "question_state", "answer_state")


def dump(variant, path, settings=BATCHED, **how):
    dump_features(variant.checkpoint, variant.questions, path, settings, load_task("vqa"), **how)
    return path


def read(path):
    return pl.read_parquet(path).sort("question_id")


def notes(path):
    return {key.decode(): value.decode() for key, value in pq.read_metadata(path).metadata.items()}


def assert_same_answers(first, second):
    """Log-probabilities within 1e-4; states are kept in float16, so that one may round to the next number."""
    a, b = read(first), read(second)
    for name in ("question_id", "image_id", "answer", "token_ids", "finished", "quality"):
        assert a[name].to_list() == b[name].to_list()
    assert len(a) == 24
    for name in ("token_log_probs", "top_logits"):
        for x, y in zip(a[name].to_list(), b[name].to_list(), strict=True):
            assert x == pytest.approx(y, abs=1e-4)
    for name in ("joint_log_prob", "log_sum_exp", "entropy"):
        assert a[name].to_list() == pytest.approx(b[name].to_list(), abs=1e-4)
    for name in STATES:
        np.testing.assert_allclose(
            np.stack(a[name].to_numpy()).astype(np.float32),
            np.stack(b[name].to_numpy()).astype(np.float32),
            atol=1e-4,
            rtol=2e-3,
        )


def test_pictures_take_different_numbers_of_tokens(variant):
    """What the tests below rest on."""
    family = family_of(variant.checkpoint)
    processor = family.load_processor(str(variant.checkpoint))
    paths = pl.read_parquet(variant.questions)["image"].unique(maintain_order=True)
    placeholders = family.preprocess(processor, [Image.open(path) for path in paths]).placeholders
    assert len({text.count(family.image_token(processor)) for text in placeholders}) >= 3


def test_batches_of_pictures_and_questions_answer_as_single_ones_do(variant, tmp_path):
    batched, single = dump(variant, tmp_path / "b.parquet"), dump(variant, tmp_path / "s.parquet", SINGLE)
    assert_same_answers(batched, single)
    assert len(set(read(batched)["answer"])) > 4


def test_eager_attention_answers_as_sdpa_does(variant, tmp_path):
    eager = DumpSettings(**{**vars(BATCHED), "attention": "eager"})
    assert_same_answers(dump(variant, tmp_path / "a.parquet"), dump(variant, tmp_path / "b.parquet", eager))
    assert json.loads(notes(tmp_path / "b.parquet")["settings"])["attention"] == "eager"


def test_every_picture_passes_the_vision_tower_once_in_batches_of_its_own_size(variant, tmp_path, monkeypatch):
    encoded, decoded = [], []
    encode, decode = Family.encode_images, answering_module.decode_greedily

    def encode_images(self, model, inputs):
        encoded.append(len(inputs.placeholders))
        return encode(self, model, inputs)

    def decode_greedily(family, model, inputs, **how):
        decoded.append(len(inputs.token_ids))
        return decode(family, model, inputs, **how)

    monkeypatch.setattr(Family, "encode_images", encode_images)
    monkeypatch.setattr(answering_module, "decode_greedily", decode_greedily)
    dump(variant, tmp_path / "f.parquet")
    # ten pictures in chunks of four
    assert encoded == [3, 1, 3, 1, 2]
    # pictures have 1, 2, 3, 4, 1, ... questions, and the second has one more
    assert decoded == [5, 5, 1, 5, 5, 3]
    written = pq.ParquetFile(tmp_path / "f.parquet").metadata
    assert [written.row_group(number).num_rows for number in range(written.num_row_groups)] == [11, 10, 3]


def test_a_picture_of_several_questions_is_read_once_and_answered_as_if_read_for_each(variant, tmp_path, monkeypatch):
    read, reading = [], answering_module.read_images

    def read_images(family, model, inputs, behind):
        read.append(len(inputs.token_ids))
        return reading(family, model, inputs, behind)

    monkeypatch.setattr(answering_module, "read_images", read_images)
    once = dump(variant, tmp_path / "once.parquet")
    # ten pictures in chunks of four
    assert read == [4, 4, 2]
    few = DumpSettings(**{**vars(BATCHED), "batch_size": 3})
    assert_same_answers(once, dump(variant, tmp_path / "few.parquet", few))
    assert read[3:] == [3, 1, 3, 1, 2]
    monkeypatch.setattr(answering_module, "can_share", lambda *model: False)
    assert_same_answers(once, dump(variant, tmp_path / "each.parquet"))
    assert len(read) == 8


def test_the_workers_that_prepare_pictures_do_not_change_a_byte(variant, tmp_path):
    files = [dump(variant, tmp_path / f"{workers}.parquet", workers=workers) for workers in (0, 1, 2)]
    assert len({path.read_bytes() for path in files}) == 1


def test_weights_that_are_kept_dequantized_do_not_change_a_byte(variants, tmp_path, monkeypatch):
    files = []
    for limit in (linear_module.KEPT_BYTES, 0):
        monkeypatch.setattr(linear_module, "KEPT_BYTES", limit)
        files.append(dump(variants["idefics3"], tmp_path / f"{limit}.parquet"))
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_chunk_is_on_disk_before_the_next_and_its_pictures_are_given_up(variants, tmp_path, monkeypatch):
    sizes, held, made, encode = [], [], [], FeatureDumper.encode

    def encode_images(self, images, inputs, where):
        (partial,) = tmp_path.glob(".f.parquet.*.partial")
        sizes.append(partial.stat().st_size)
        held.append(sum(image() is not None for image in made))
        encoded = encode(self, images, inputs, where)
        made.extend(weakref.ref(image.features) for image in encoded)
        return encoded

    monkeypatch.setattr(FeatureDumper, "encode", encode_images)
    dump(variants["idefics3"], tmp_path / "f.parquet")
    # Of the two batches of a chunk the second finds the pictures of the first.
    assert held == [0, 3, 0, 3, 0]
    assert sizes[0] == sizes[1] < sizes[2] == sizes[3] < sizes[4]


def test_a_job_computes_on_one_thread_however_many_cores_it_has(variants, tmp_path, monkeypatch):
    found, decode = [], answering_module.decode_greedily

    def decode_greedily(*arguments, **how):
        found.append(torch.get_num_threads())
        return decode(*arguments, **how)

    monkeypatch.setattr(answering_module, "decode_greedily", decode_greedily)
    torch.set_num_threads(2)
    dump(variants["qwen2_vl"], tmp_path / "f.parquet", workers=1)
    assert set(found) == {1}


@pytest.mark.parametrize("family", ["qwen2_vl", "idefics3"])
def test_no_config_json_decides_how_answers_are_computed(family, variants, tmp_path):
    """The same bytes, and the attention that ran is recorded, whatever the folder says that was quantized."""
    variant = variants[family]
    source = shutil.copytree(variant.checkpoint.parent / "model", tmp_path / "model")
    config = json.loads((source / "config.json").read_text())
    for part in (config, config["text_config"], config["vision_config"]):
        part |= {"_attn_implementation": "eager", "attn_implementation": "eager", "torch_dtype": "float16"}
        part |= {"output_hidden_states": True, "return_dict": False, "use_cache": False}
    (source / "config.json").write_text(json.dumps(config))
    quantize_model(source, "rtn-w8g64-full", None, tmp_path / "checkpoint")
    dump_features(tmp_path / "checkpoint", variant.questions, tmp_path / "other.parquet", BATCHED, load_task("vqa"))
    assert notes(tmp_path / "other.parquet")["attention"] == "sdpa"
    assert (tmp_path / "other.parquet").read_bytes() == dump(variant, tmp_path / "f.parquet").read_bytes()


def test_the_attention_that_is_recorded_is_that_of_the_model(variants, tmp_path, monkeypatch):
    def load_checkpoint(*args):
        loaded = features_module_load(*args)
        loaded[1].get_submodule(loaded[0].tower).set_attn_implementation("eager")
        return loaded

    features_module_load = features_module.load_checkpoint
    monkeypatch.setattr(features_module, "load_checkpoint", load_checkpoint)
    assert notes(dump(variants["idefics3"], tmp_path / "f.parquet"))["attention"] == "eager, sdpa"


def test_the_file_says_what_it_was_made_with(variant, tmp_path):
    found = notes(dump(variant, tmp_path / "f.parquet"))
    record = json.loads((variant.checkpoint / "quantization.json").read_text())
    assert found["weights_sha256"] == record["sha256"]
    assert found["scheme"] == "rtn-w8g64-full"
    assert (found["device"], found["halved_batches"]) == ("cpu", "0")
    assert json.loads(found["settings"]) == vars(BATCHED)
    assert json.loads(found["kernels"]).keys() == {"reference"}
    assert {"plan", "torch", "transformers"} < found.keys()
    assert "shard" not in found
    size, hidden = (tmp_path / "f.parquet").stat().st_size, len(read(tmp_path / "f.parquet")["answer_state"][0])
    assert size < features_bytes(24, hidden, BATCHED.top_k)


@pytest.fixture
def memory(monkeypatch):
    """A device whose memory holds so many questions, and so many pictures."""

    def limit(questions=10**6, pictures=10**6):
        encode, decode = Family.encode_images, answering_module.decode_greedily

        def encode_images(self, model, inputs):
            if len(inputs.placeholders) > pictures:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
            return encode(self, model, inputs)

        def decode_greedily(family, model, inputs, **how):
            if len(inputs.token_ids) > questions:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
            return decode(family, model, inputs, **how)

        monkeypatch.setattr(Family, "encode_images", encode_images)
        monkeypatch.setattr(answering_module, "decode_greedily", decode_greedily)

    return limit


def test_pictures_that_cannot_be_read_together_are_halved(variants, tmp_path, monkeypatch):
    whole = dump(variants["qwen2_vl"], tmp_path / "whole.parquet")
    reading = answering_module.read_images

    def read_images(family, model, inputs, behind):
        if len(inputs.token_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
        return reading(family, model, inputs, behind)

    monkeypatch.setattr(answering_module, "read_images", read_images)
    assert_same_answers(whole, dump(variants["qwen2_vl"], tmp_path / "halved.parquet"))
    # both chunks of four pictures
    assert notes(tmp_path / "halved.parquet")["halved_batches"] == "2"


@pytest.mark.parametrize(
    "said",
    ["CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling", "DefaultCPUAllocator: can't allocate memory: you tried"],
)
def test_a_lack_of_memory_that_another_library_meets_halves_too(said, caplog):
    def work(places):
        if len(places) > 1:
            raise RuntimeError(said)
        return places

    halving = Halving()
    with caplog.at_level(logging.WARNING):
        parts = list(halving.run(work, [0, 1, 2], "here", "questions", str))
    assert parts == [([0], [0]), ([1], [1]), ([2], [2])] and halving.count == 2
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        list(halving.run(lambda places: torch.ones(2, 3) @ torch.ones(2, 3), [0, 1], "here", "questions", str))


def test_batches_that_do_not_fit_are_halved_and_give_the_same_answers(variant, tmp_path, memory, caplog):
    whole = dump(variant, tmp_path / "whole.parquet")
    memory(questions=2, pictures=1)
    with caplog.at_level(logging.WARNING):
        halved = dump(variant, tmp_path / "halved.parquet")
    assert_same_answers(whole, halved)
    # 5 questions into 3 and 2, and 3 into 2 and 1, four times; 3 questions; 3 pictures and 2 of them, twice; 2 more.
    assert notes(halved)["halved_batches"] == str(4 * 2 + 1 + 2 * 2 + 1)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 14
    assert lines[0] == (
        "pictures, chunk 1, image batch 1: 3 images do not fit the memory of the device and are halved (CUDA out of "
        "memory. Tried to allocate 2.00 GiB.)"
    )
    assert lines[2].startswith("pictures, chunk 1, batch 1: 5 questions do not fit")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"questions": 0}, r"question q\d+ does not fit the memory of the device alone \(CUDA out of memory"),
        ({"pictures": 0}, r"image .*0\.png \(question q0\) does not fit the memory of the device alone"),
    ],
)
def test_what_does_not_fit_alone_is_named_and_nothing_is_left(variants, tmp_path, memory, limits, message):
    memory(**limits)
    with pytest.raises(QuantrustError, match=message):
        dump(variants["idefics3"], tmp_path / "out" / "f.parquet")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def copied(variants, tmp_path):
    """The Qwen2-VL variant with pictures that a test may spoil."""
    variant = variants["qwen2_vl"]
    table = pl.read_parquet(variant.questions)
    (tmp_path / "images").mkdir()
    for path in table["image"].unique():
        shutil.copy(path, tmp_path / "images")
    name = pl.col("image").str.extract(r"([^/]+)$")
    write_table(table.with_columns(image=pl.lit(f"{tmp_path}/images/") + name), tmp_path / "q.parquet")
    return type(variant)(variant.family, variant.checkpoint, tmp_path / "q.parquet")


def spoil(path, how):
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    else:
        Image.new("RGB", (603, 3)).save(path)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"/6\.png cannot be used \(no such file\), but question q13 needs it$"),
        ("truncated", r"/6\.png cannot be used \(.+\), but question q13 needs it$"),
        (
            "slender",
            r"/6\.png \(question q13\), 603 x 3, is refused by the model's processor \(absolute aspect ratio must",
        ),
    ],
)
def test_a_picture_that_cannot_be_preprocessed_is_named_with_a_question(copied, tmp_path, how, message, workers):
    spoil(tmp_path / "images" / "6.png", how)
    with pytest.raises(QuantrustError, match=message):
        dump(copied, tmp_path / "out" / "f.parquet", workers=workers)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_worker_that_dies_is_said(variants, tmp_path, monkeypatch):
    monkeypatch.setattr("quantrust.inference.preprocessing.read_image", lambda path: os._exit(9))
    with pytest.raises(QuantrustError, match=r"a process that preprocesses images died .*; ask for more memory"):
        dump(variants["qwen2_vl"], tmp_path / "f.parquet", workers=1)
    assert not (tmp_path / "f.parquet").exists()


@pytest.fixture
def no_work(monkeypatch):
    def load(*arguments):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(features_module, "load_checkpoint", load)


@pytest.mark.usefixtures("no_work")
def test_a_disk_without_room_stops_the_dump_before_any_work(variants, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    with pytest.raises(QuantrustError, match=r"f\.parquet takes up to .* GB, but .* has 1e-05 GB free; make room"):
        dump(variants["qwen2_vl"], tmp_path / "f.parquet")


@pytest.mark.usefixtures("no_work")
def test_a_shard_needs_room_for_the_others_and_for_the_file_that_they_are_gathered_in(variants, tmp_path, monkeypatch):
    def refused(**shard):
        with pytest.raises(QuantrustError) as raised:
            dump(variants["qwen2_vl"], tmp_path / "2-of-3.parquet", BATCHED, **shard)
        return float(str(raised.value).split(" GB")[0].split()[-1])

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    whole, shared = refused(), refused(shard=(2, 3))
    assert shared == pytest.approx(2 * whole, rel=0.01)
    (tmp_path / "1-of-3.parquet").write_bytes(bytes(20_000))
    assert refused(shard=(2, 3)) == pytest.approx(shared - 2e-5, abs=1e-7)


def ask(variant, folder, *texts):
    """Return the variant with other texts in the place of its last questions."""
    table = pl.read_parquet(variant.questions)
    asked = [*table["question"][: -len(texts)], *texts]
    write_table(table.with_columns(question=pl.Series(asked)), folder / "questions.parquet")
    return dataclasses.replace(variant, questions=folder / "questions.parquet")


def test_a_question_that_holds_a_token_of_the_prompt_is_named_before_any_is_answered(variants, tmp_path):
    variant = ask(variants["idefics3"], tmp_path, "What is <image>?")
    with pytest.raises(QuantrustError, match=r"questions\.parquet: question \w+ holds '<image>', which is a token"):
        dump(variant, tmp_path / "f.parquet")
    assert not (tmp_path / "f.parquet").exists()


def test_a_question_of_which_a_token_is_left_has_finite_states(variant, tmp_path):
    asked = ask(variant, tmp_path, "\u200b", "\n", " ", "\u0301", "\ufeff")
    table = pl.read_parquet(dump(asked, tmp_path / "f.parquet"))
    for name in STATES:
        assert np.isfinite(np.stack(table[name].to_numpy())).all()


def test_a_question_of_which_no_token_is_left_is_named_before_the_model_runs(variant, tmp_path, monkeypatch):
    monkeypatch.setattr(Family, "encode_images", None)
    shutil.copytree(variant.checkpoint, tmp_path / "checkpoint")
    tokenizer = json.loads((tmp_path / "checkpoint" / "tokenizer.json").read_text())
    # as tokenizers made by SentencePiece do
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "\u200b"}, "content": ""}
    (tmp_path / "checkpoint" / "tokenizer.json").write_text(json.dumps(tokenizer))
    write_record(tmp_path / "checkpoint")
    changed = dataclasses.replace(variant, checkpoint=tmp_path / "checkpoint")
    for text, message in [
        ("\u200b\u200b", r"question q23 is '\\u200b\\u200b', and the model's tokenizer makes no token of it; reword"),
        ("", r"question q23 is '', and the model's tokenizer makes no token of it"),
    ]:
        with pytest.raises(QuantrustError, match=rf"questions\.parquet: {message}"):
            dump(ask(changed, tmp_path, text), tmp_path / "f.parquet")
        assert not (tmp_path / "f.parquet").exists()


def test_states_that_float16_cannot_hold_stop_the_dump(variants, tmp_path, monkeypatch):
    def decode(*arguments, **keywords):
        decoded = decode_greedily(*arguments, **keywords)
        return dataclasses.replace(decoded, answer_state=decoded.answer_state + 1e5)

    monkeypatch.setattr(answering_module, "decode_greedily", decode)
    with pytest.raises(QuantrustError, match=r"a state \(answer_state\) that float16 cannot hold"):
        dump(variants["qwen2_vl"], tmp_path / "f.parquet")
    assert not (tmp_path / "f.parquet").exists()


@pytest.mark.usefixtures("no_work")
@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_device_that_is_not_there_stops_the_dump_before_any_work(variants, tmp_path):
    with pytest.raises(QuantrustError, match=r"device is cuda, but torch .* sees no GPU"):
        dump(variants["qwen2_vl"], tmp_path / "f.parquet", DumpSettings(device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_answers_as_the_processor_does(variant, tmp_path):
    on_gpu = DumpSettings(**{**vars(BATCHED), "device": "cuda"})
    assert_same_answers(dump(variant, tmp_path / "c.parquet"), dump(variant, tmp_path / "g.parquet", on_gpu))
    assert notes(tmp_path / "g.parquet")["device"] == torch.cuda.get_device_name()


def test_captions_add_to_the_metric_of_their_split(variants, tmp_path):
    variant, task = variants["idefics3"], load_task("captioning")
    questions = pl.read_parquet(variant.questions)
    early = questions["image_id"].unique(maintain_order=True)[:5]
    split = pl.when(pl.col("image_id").is_in(early.to_list())).then(pl.lit("test")).otherwise(pl.lit("val"))
    questions = questions.with_columns(split=split).sort("split", maintain_order=True)
    answered = read(dump(variant, tmp_path / "f.parquet"))
    # Some of the answers are among the references, so that they add something.
    said = dict(zip(answered["question_id"], answered["answer"], strict=True))
    references = [[said[key], f"a word of {key}"] for key in questions["question_id"]]
    asked = tmp_path / "captions.parquet"
    write_table(questions.with_columns(answers=pl.Series(references)), asked)
    paths = [tmp_path / "whole.parquet", *(tmp_path / f"{shard}.parquet" for shard in (1, 2))]
    for path, how in zip(paths, ({}, {"shard": (1, 2)}, {"shard": (2, 2)}), strict=True):
        dump_features(variant.checkpoint, asked, path, BATCHED, task, **how)
    found = read(paths[0])
    own = dict(zip(questions["question_id"], references, strict=True))
    for split in ("val", "test"):
        part = found.filter(split=split)
        expected = cider_d(part["answer"].to_list(), [own[key] for key in part["question_id"]])
        assert expected > 0 and part["cider_d"].mean() == pytest.approx(expected)
    gather_features(paths[1:], asked, tmp_path / "gathered.parquet", BATCHED)
    assert (tmp_path / "gathered.parquet").read_bytes() == paths[0].read_bytes()
