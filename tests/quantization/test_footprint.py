"""The estimated memory of quantizing is above what its tensors take; a GPU that is too small stops it at once."""

import pytest
import torch

from live_tensors import LiveTensors
from quantrust.errors import QuantrustError
from quantrust.models.footprint import LIBRARIES
from quantrust.models.pictures import picture_cost
from quantrust.models.skeleton import build_skeleton
from quantrust.quantization import quantize
from quantrust.quantization.checkpoint import planned_bytes
from quantrust.quantization.footprint import Samples, quantize_footprint
from quantrust.quantization.plan import build_plan
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.scheme import parse_scheme


def estimated(folder, scheme, table, device):
    with torch.device("meta"):
        (family, model), (_, changed) = (build_skeleton(folder) for _ in range(2))
    plan = build_plan(family, model, parse_scheme(scheme))
    sizes = planned_bytes(family, changed, plan)
    picture = picture_cost(family, model, family.load_processor(str(folder)), "{question}", 64, 64)
    longest = max(len(ids) for ids in table["token_ids"])
    samples = Samples(len(table), longest, picture.patches, picture.pixel_bytes)
    needed = samples if parse_scheme(scheme).needs_calibration else None
    return quantize_footprint(family, model, plan, sizes, parse_scheme(scheme), needed, device)


@pytest.mark.parametrize("family_name", ["qwen2_vl", "idefics3"])
@pytest.mark.parametrize("scheme", ["hqq-w4g64-full", "mbq-w4g64", "awq-w3g64-full", "gptq-w4g64-full"])
def test_quantizing_takes_less_than_estimated(family_name, scheme, model_folders, calibration_tables, tmp_path):
    folder, table = model_folders[family_name], calibration_tables[family_name]
    with LiveTensors() as live:
        quantize_model(folder, scheme, table, tmp_path / "checkpoint")
    footprint = estimated(folder, scheme, table, "cpu")
    # the memory that a skeleton reserves is never touched
    untouched = sum(parameter.numel() * 4 for parameter in build_skeleton(folder)[1].parameters())
    assert 1 < (footprint.host - LIBRARIES) / (live.peak - untouched) < 5
    assert footprint.device == 0


def test_what_does_not_fit_the_budget_of_memory_goes_to_files(model_folders, calibration_tables, monkeypatch):
    folder, table = model_folders["qwen2_vl"], calibration_tables["qwen2_vl"]
    assert estimated(folder, "mbq-w4g64", table, "cpu").scratch == 0
    kept = estimated(folder, "mbq-w4g64", table, "cpu").host
    monkeypatch.setattr("quantrust.quantization.footprint.LEAST_ACTIVATION_BYTES", 0)
    spilled = estimated(folder, "mbq-w4g64", table, "cpu")
    assert spilled.scratch > 0
    assert spilled.host + spilled.scratch == kept


def test_a_gpu_that_is_too_small_is_refused_before_anything_is_written(
    model_folders, calibration_tables, monkeypatch, tmp_path
):
    folder, table = model_folders["idefics3"], calibration_tables["idefics3"]
    properties = type("Properties", (), {"total_memory": 1_000_000})
    monkeypatch.setattr(quantize, "check_device", lambda *arguments: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    with pytest.raises(QuantrustError) as raised:
        quantize_model(folder, "mbq-w4g64", table, tmp_path / "checkpoint", "cuda")
    assert str(raised.value).startswith(f"quantizing {folder} under mbq-w4g64 needs about ")
    assert "cuda has 0.001 GB in all; quantize on a larger GPU, or set compute.device: cpu" in str(raised.value)
    assert not any(tmp_path.iterdir())
