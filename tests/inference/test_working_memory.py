"""The estimated memory of a dump is above what its tensors take, and not far above."""

from dataclasses import replace

import polars as pl
import pytest
import torch

from live_tensors import LiveTensors
from quantrust.errors import QuantrustError
from quantrust.inference import features, working_memory
from quantrust.inference.answering import DTYPES
from quantrust.inference.chunks import cut_into_chunks
from quantrust.inference.features import FeatureDumper
from quantrust.inference.preprocessing import preprocess_images
from quantrust.inference.settings import DumpSettings
from quantrust.inference.working_memory import dump_footprint, require_device
from quantrust.models.pictures import picture_cost
from quantrust.models.skeleton import build_skeleton
from quantrust.quantization import linear
from quantrust.quantization.checkpoint import load_checkpoint, read_record
from quantrust.tasks.task import load_task
from quantrust.tasks.vqa import soft_accuracy

WHOLE = DumpSettings(top_k=8, batch_size=24, images_per_batch=10, images_per_chunk=10)


def measured(variant, settings: DumpSettings, shares: bool) -> tuple[int, dict]:
    """Return what the tensors of a dump take at most, and the record of the checkpoint."""
    family, model, processor, record = load_checkpoint(
        variant.checkpoint, DTYPES[settings.dtype], settings.kernel, settings.device, settings.attention
    )
    dumper = FeatureDumper(family, model, processor, settings, soft_accuracy)
    dumper.shares = shares
    (chunk,) = cut_into_chunks(pl.read_parquet(variant.questions), settings.images_per_chunk)
    with LiveTensors() as live:
        encoded = {}
        for images in features._image_batches(chunk, settings.images_per_batch):
            inputs = preprocess_images(family, processor, images)
            encoded |= zip((i.path for i in images), dumper.encode(images, inputs, ""), strict=True)
        dumper.chunk_table(chunk, encoded, "")
    return live.peak + sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())), record


def estimated(variant, record: dict, settings: DumpSettings, monkeypatch) -> int:
    """Return the device memory that is estimated where the lengths of questions are known."""
    with torch.device("meta"):
        family, model = build_skeleton(variant.checkpoint)
    processor = family.load_processor(str(variant.checkpoint))
    questions = pl.read_parquet(variant.questions)["question"].to_list()
    longest = max(len(ids) for ids in processor.tokenizer(questions, add_special_tokens=False)["input_ids"])
    monkeypatch.setattr(working_memory, "QUESTION_TOKENS", longest)
    layers = pl.DataFrame(record["layers"], infer_schema_length=None)
    picture = picture_cost(family, model, processor, settings.prompt, 120, 118)
    on_gpu = replace(settings, device="cuda")
    return dump_footprint(family, model, layers, record["bytes"], picture, on_gpu, workers=0).device


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention": "eager"},
        {"dtype": "bfloat16"},
        {"batch_size": 3, "images_per_batch": 2},
    ],
    ids=str,
)
def test_a_dump_takes_less_than_estimated_and_not_much_less(variant, changes, monkeypatch):
    settings = replace(WHOLE, **changes)
    # as on a GPU, where no weight is kept dequantized
    monkeypatch.setattr(linear, "KEPT_BYTES", 0)
    (once, record), (each, _) = (measured(variant, settings, shares) for shares in (True, False))
    # pictures of one question are read with it, which takes the most
    estimate = estimated(variant, record, settings, monkeypatch)
    assert max(once, each) < estimate < 2.5 * each


def test_a_gpu_that_has_no_room_for_one_question_is_refused_before_weights_are_read(variant):
    record, on_gpu = read_record(variant.checkpoint), replace(WHOLE, device="cuda")
    weights = record["bytes"]["weights_file"]
    with pytest.raises(QuantrustError) as raised:
        require_device(variant.checkpoint, record, (120, 118), on_gpu, (weights, 10**9))
    assert str(raised.value).startswith(f"answering with {variant.checkpoint} needs about ")
    assert str(raised.value).endswith("a smaller features.images_per_chunk; more shards do not help")
    # a batch of 24 would take more, and is halved
    processor = load_checkpoint(variant.checkpoint)[2]
    with torch.device("meta"):
        family, model = build_skeleton(variant.checkpoint)
    picture = picture_cost(family, model, processor, on_gpu.prompt, 120, 118)
    layers = pl.DataFrame(record["layers"], infer_schema_length=None)
    room = dump_footprint(family, model, layers, record["bytes"], picture, on_gpu, workers=0).least
    require_device(variant.checkpoint, record, (120, 118), on_gpu, (room, 10**9))
    # a chunk is not halved
    with pytest.raises(QuantrustError, match="images_per_chunk"):
        require_device(variant.checkpoint, record, (120, 118), replace(on_gpu, images_per_chunk=1000), (room, 10**9))


def test_a_dump_looks_at_the_gpu_before_it_loads(variant, monkeypatch, tmp_path):
    def refuse(folder, record, picture, settings):
        assert picture == (64, 64)
        # as many as there are
        assert settings.images_per_chunk == 10
        raise QuantrustError("too small")

    on_gpu = replace(WHOLE, device="cuda", images_per_chunk=64)
    monkeypatch.setattr(features, "check_device", lambda *arguments: None)
    monkeypatch.setattr(features, "require_device", refuse)
    monkeypatch.setattr(features, "load_checkpoint", lambda *arguments: pytest.fail("weights were read"))
    with pytest.raises(QuantrustError, match="too small"):
        features.dump_features(variant.checkpoint, variant.questions, tmp_path / "f", on_gpu, load_task("vqa"))
    assert not any(tmp_path.iterdir())
