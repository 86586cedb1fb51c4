"""The estimated memory of quantizing is above what its tensors take; a GPU that is too small stops it at once."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from live_tensors import LiveTensors
from quantrust.errors import QuantrustError
from quantrust.models import weights
from quantrust.models.footprint import LIBRARIES, SLACK
from quantrust.models.pictures import picture_cost
from quantrust.models.skeleton import build_skeleton
from quantrust.models.streamed_weights import StreamedWeights
from quantrust.quantization import quantize
from quantrust.quantization.activation_store import ActivationStore
from quantrust.quantization.calibration_memory import samples_of
from quantrust.quantization.checkpoint import planned_bytes
from quantrust.quantization.hessian import HessianSum
from quantrust.quantization.layer_plan import build_layer_plan
from quantrust.quantization.methods.gptq import factor_hessian
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.quantizing_memory import quantize_footprint
from quantrust.quantization.scheme import parse_scheme
from quantrust.quantization.walks.sequential import FACTORING, prepare_inputs


def estimated(folder, scheme, table, device):
    with torch.device("meta"):
        family, model = build_skeleton(folder)
    plan = build_layer_plan(family, model, parse_scheme(scheme))
    sizes = planned_bytes(family, model, plan)
    needed = None
    if parse_scheme(scheme).needs_calibration:
        needed = samples_of(family, model, family.load_processor(str(folder)), table)
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


@pytest.mark.parametrize("family_name", ["qwen2_vl", "idefics3"])
def test_samples_are_those_of_the_table(family_name, model_folders, calibration_tables):
    folder, table = model_folders[family_name], calibration_tables[family_name]
    family, model = build_skeleton(folder)
    processor = family.load_processor(str(folder))
    samples = samples_of(family, model, processor, table)
    picture = picture_cost(family, model, processor, "{question}", 64, 64)
    assert (samples.count, samples.patches, samples.pixel_bytes) == (5, picture.patches, picture.pixel_bytes)
    assert samples.tokens == max(len(ids) for ids in table["token_ids"])


def test_a_part_is_loaded_whole_and_written_with_a_copy_of_a_tensor(model_folders, monkeypatch, tmp_path):
    # so few that looking at them takes less than a copy, as it does of tensors of more than some millions
    monkeypatch.setattr(weights, "NUMBERS_AT_ONCE", 1000)
    folder = tmp_path / "model"
    shutil.copytree(model_folders["qwen2_vl"], folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, folder / "model.safetensors")
    family, model = build_skeleton(folder)
    streamed, peaks = StreamedWeights(folder, family, model), {}
    for part in streamed.parts:
        with LiveTensors() as live, streamed.loaded(part):
            for parameter in model.get_submodule(part).parameters():
                parameter.bfloat16()
            # before the weights give way to ones on the meta device, which count here
            peaks[part] = live.peak
    device = estimated(folder, "bf16", None, "cuda").device
    assert 0.9 < device / SLACK / max(peaks.values()) < 1.1
    # beside the part a layer is quantized
    assert estimated(folder, "rtn-w4g64", None, "cuda").device > device


def test_factoring_a_hessian_takes_what_is_estimated():
    # so many that the columns which are factored together hardly count
    columns = 3072
    sizes = torch.ones(columns)
    # nearly as many outliers as there can be
    sizes[: columns // 11] = 1e3
    with LiveTensors() as live:
        total = HessianSum(columns)
        total.add(sizes.diag())
        prepare_inputs(total, ["layer"], factor_hessian)
    assert 0.9 < live.peak / (FACTORING * columns**2) < 1.2


def test_a_whole_vision_tower_is_checked_before_the_job(model_folders, calibration_tables, monkeypatch, tmp_path):
    folder, table = model_folders["idefics3"], calibration_tables["idefics3"]
    asked = []

    def stop(job, needed, device, advice):
        asked.append(needed)
        raise QuantrustError("asked")

    monkeypatch.setattr(quantize, "check_device", lambda *arguments: None)
    monkeypatch.setattr(quantize, "require_device_memory", stop)
    with pytest.raises(QuantrustError, match="asked"):
        quantize_model(folder, "awq-w4g64-full", table, tmp_path / "checkpoint", "cuda")
    assert asked == [estimated(folder, "awq-w4g64-full", table, "cuda").device]


@pytest.mark.parametrize("family_name", ["qwen2_vl", "idefics3"])
@pytest.mark.parametrize("scheme", ["mbq-w4g64", "awq-w4g64-full", "gptq-w4g64-full"])
def test_files_of_activations_take_less_than_estimated(
    scheme, family_name, model_folders, calibration_tables, monkeypatch, tmp_path
):
    folder, table = model_folders[family_name], calibration_tables[family_name]
    peak = 0
    release = ActivationStore._release

    def look(self, size, path):
        """The files are largest just before one is deleted."""
        nonlocal peak
        peak = max(peak, sum(file.stat().st_size for file in self.folder.iterdir()))
        release(self, size, path)

    monkeypatch.setattr(ActivationStore, "_release", look)
    # a micro-batch for each sample
    for module in ("calibration_samples", "calibration_memory"):
        monkeypatch.setattr(f"quantrust.quantization.{module}.BATCH_STATES", 1)
    monkeypatch.setattr("quantrust.quantization.quantizing_memory.activation_budget", lambda sizes: 0)
    quantize_model(folder, scheme, table, tmp_path / "checkpoint", activation_bytes=0)
    assert 1 < estimated(folder, scheme, table, "cpu").scratch / peak < 1.6


def test_what_does_not_fit_the_budget_of_memory_goes_to_files(model_folders, calibration_tables, monkeypatch):
    folder, table = model_folders["qwen2_vl"], calibration_tables["qwen2_vl"]
    assert estimated(folder, "mbq-w4g64", table, "cpu").scratch == 0
    kept = estimated(folder, "mbq-w4g64", table, "cpu").host
    monkeypatch.setattr("quantrust.quantization.quantizing_memory.LEAST_ACTIVATION_BYTES", 0)
    spilled = estimated(folder, "mbq-w4g64", table, "cpu")
    assert spilled.scratch > 0
    assert spilled.host + spilled.scratch == kept


def test_a_gpu_that_is_too_small_is_refused_before_anything_is_written(
    model_folders, calibration_tables, monkeypatch, tmp_path
):
    folder, table = model_folders["idefics3"], calibration_tables["idefics3"]
    monkeypatch.setattr(quantize, "check_device", lambda *arguments: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1_000_000, 2_000_000))
    with pytest.raises(QuantrustError) as raised:
        quantize_model(folder, "mbq-w4g64", table, tmp_path / "checkpoint", "cuda")
    assert str(raised.value).startswith(f"quantizing {folder} under mbq-w4g64 needs about ")
    message = "but of the 0.002 GB of cuda 0.001 GB are free; quantize on a larger GPU, or set compute.device: cpu"
    assert message in str(raised.value)
    assert not any(tmp_path.iterdir())
