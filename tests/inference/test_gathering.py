"""Shards put together: not a byte differs from what one job writes, and what does not belong is refused."""

import pyarrow.parquet as pq
import pytest
import torch

from quantrust.errors import QuantrustError
from quantrust.inference import answering as answering_module
from quantrust.inference import origin as origin_module
from quantrust.inference.features import dump_features
from quantrust.inference.gathering import gather_features
from quantrust.inference.settings import DumpSettings
from quantrust.tasks.task import load_task

SETTINGS = DumpSettings(max_new_tokens=3, top_k=4, batch_size=5, images_per_batch=2, images_per_chunk=2)


def dump_shards(variant, folder, shards, settings=SETTINGS):
    paths = [folder / f"{shard}-of-{shards}.parquet" for shard in range(1, shards + 1)]
    for shard, path in enumerate(paths, start=1):
        dump_features(variant.checkpoint, variant.questions, path, settings, load_task("vqa"), shard=(shard, shards))
    return paths


# ten pictures are five chunks; of seven shards two are empty
@pytest.mark.parametrize("shards", [2, 3, 7])
def test_the_number_of_shards_does_not_change_a_byte(variant, shards, tmp_path):
    dump_features(variant.checkpoint, variant.questions, tmp_path / "one.parquet", SETTINGS, load_task("vqa"))
    paths = dump_shards(variant, tmp_path, shards)
    assert sum(not pq.read_metadata(path).num_rows for path in paths) == max(0, shards - 5)
    gather_features(paths, variant.questions, tmp_path / "gathered.parquet", SETTINGS)
    assert (tmp_path / "gathered.parquet").read_bytes() == (tmp_path / "one.parquet").read_bytes()


@pytest.fixture(scope="module")
def two_shards(variants, tmp_path_factory):
    return dump_shards(variants["qwen2_vl"], tmp_path_factory.mktemp("shards"), 2)


def test_shards_that_do_not_belong_together_are_refused(variants, two_shards, tmp_path):
    variant, other = variants["qwen2_vl"], variants["idefics3"]
    first, second = two_shards
    replanned = DumpSettings(**{**vars(SETTINGS), "images_per_chunk": 3})
    truncated = tmp_path / "truncated.parquet"
    truncated.write_bytes(second.read_bytes()[:-10])
    for name in ("foreign", "thirds"):
        (tmp_path / name).mkdir()
    foreign = dump_shards(other, tmp_path / "foreign", 2)[1]
    third = dump_shards(variant, tmp_path / "thirds", 3)[1]
    for paths, settings, message in [
        ([first, tmp_path / "2-of-2.parquet"], SETTINGS, r"2-of-2\.parquet is missing; run the same command again"),
        ([first, truncated], SETTINGS, r"truncated\.parquet is damaged"),
        ([second, first], SETTINGS, r"2-of-2\.parquet has shard 2 of 2, but this run has 1 of 2"),
        ([first, third], SETTINGS, r"2-of-3\.parquet has shard 2 of 3, but this run has 2 of 2"),
        ([first], SETTINGS, r"1-of-2\.parquet has shard 1 of 2, but this run has 1 of 1"),
        ([first, second], replanned, r"1-of-2\.parquet has plan \w+, but this run has \w+: it was dumped by another"),
        ([first, second], DumpSettings(**{**vars(SETTINGS), "top_k": 5}), r'settings .*"top_k": 4.* has .*"top_k": 5'),
        (
            [first, foreign],
            SETTINGS,
            r'2-of-2\.parquet has kernels {"reference": 35}, but .*1-of-2\.parquet has {"reference": 32}',
        ),
    ]:
        with pytest.raises(QuantrustError, match=message):
            gather_features(paths, variant.questions, tmp_path / "out" / "f.parquet", settings)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_halved_batches_of_shards_are_added_up_and_devices_listed(variants, tmp_path, monkeypatch):
    variant, decode = variants["qwen2_vl"], answering_module.decode_greedily

    def decode_greedily(family, model, inputs, **how):
        if len(inputs.token_ids) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(family, model, inputs, **how)

    monkeypatch.setattr(answering_module, "decode_greedily", decode_greedily)
    dump_features(variant.checkpoint, variant.questions, tmp_path / "one.parquet", SETTINGS, load_task("vqa"))
    names = iter(["NVIDIA H200", "NVIDIA H100 80GB HBM3"])
    monkeypatch.setattr(origin_module, "device_name", lambda device: next(names))
    gather_features(dump_shards(variant, tmp_path, 2), variant.questions, tmp_path / "both.parquet", SETTINGS)
    one, both = (pq.read_metadata(tmp_path / name).metadata for name in ("one.parquet", "both.parquet"))
    assert int(both[b"halved_batches"]) == int(one[b"halved_batches"]) > 1
    assert both[b"device"] == b"NVIDIA H100 80GB HBM3, NVIDIA H200"
