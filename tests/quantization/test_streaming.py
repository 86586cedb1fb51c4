"""Quantizing part by part gives the bytes that a model held in memory as a whole gives, and takes less memory."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from quantrust.artifacts.tables import write_table
from quantrust.errors import QuantrustError
from quantrust.models.family import Role
from quantrust.models.loading import load_model
from quantrust.models.skeleton import build_skeleton
from quantrust.quantization.activation_store import ActivationStore
from quantrust.quantization.block_inputs import in_memory, run_stack
from quantrust.quantization.calibration_samples import language_batches, vision_batches
from quantrust.quantization.checkpoint import save_checkpoint
from quantrust.quantization.folding import fold_scale
from quantrust.quantization.kernels.onednn import FastLinears
from quantrust.quantization.layer_plan import build_layer_plan
from quantrust.quantization.linear import PackedWeight, replace_layer
from quantrust.quantization.methods import hqq, mbq
from quantrust.quantization.methods.mbq import batches_together, modality_ratios
from quantrust.quantization.methods.rtn import quantize_rtn
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.scale_search import Batch, search_stack
from quantrust.quantization.scheme import parse_scheme

FAMILIES = ["qwen2_vl", "idefics3"]
WEIGHTS = "model.safetensors"


def decode(family, model, inputs):
    return family.read_prompts(model, inputs)[0]


def test_a_stack_that_is_run_block_by_block_yields_what_it_yields_in_the_model(calibrated):
    family, model, images, prompts = calibrated
    runs = {
        "vision": [partial(family.encode_images, model, inputs) for inputs in images],
        "connector": [partial(family.encode_images, model, inputs) for inputs in images],
        "language": [partial(decode, family, model, inputs) for inputs in prompts],
    }
    for component, some in runs.items():
        blocks = family.blocks(model, component)
        whole = []
        hook = model.get_submodule(blocks[-1]).register_forward_hook(
            lambda module, args, output, whole=whole: whole.append(output)
        )
        for run in some:
            run()
        hook.remove()
        for states, expected in zip(run_stack(model, blocks, some), whole, strict=True):
            assert states.get().equal(expected)


def gradient_means(family, model, inputs):
    """Return for each block and kind the sums over samples of |gradient|, over image and over answer tokens."""
    outputs = {}
    hooks = [
        model.get_submodule(group.linears[-1]).register_forward_hook(
            lambda module, args, output, place=(index, group.kind): outputs.update({place: output})
        )
        for index, block in enumerate(family.blocks(model, "language"))
        for group in family.scale_groups(model, block)
    ]
    inputs = replace(inputs, inputs_embeds=inputs.inputs_embeds.detach().clone().requires_grad_())
    with FastLinears():
        hidden = decode(family, model, inputs)
        answers = inputs.roles[:, 1:] == Role.ANSWER
        logits = family.logits(model, hidden[:, :-1][answers])
        targets, counts = inputs.token_ids[:, 1:][answers], answers.sum(dim=1).tolist()
        loss = sum(map(functional.cross_entropy, logits.split(counts), targets.split(counts)))
        gradients = dict(zip(outputs, torch.autograd.grad(loss, list(outputs.values())), strict=True))
    for hook in hooks:
        hook.remove()
    sums = {}
    for place, gradient in gradients.items():
        for role in (Role.IMAGE, Role.ANSWER):
            chosen = inputs.roles == role
            each = (gradient.abs().mean(dim=-1).double() * chosen).sum(dim=1) / chosen.sum(dim=1)
            sums[*place, role] = float(each.sum())
    return sums


def sample_by_sample(inputs):
    """Split a batch into micro-batches of one sample."""
    return [
        replace(
            inputs,
            inputs_embeds=inputs.inputs_embeds[row : row + 1],
            attention_mask=inputs.attention_mask[row : row + 1],
            position_ids=inputs.position_ids[..., row : row + 1, :],
            token_ids=inputs.token_ids[row : row + 1],
            roles=inputs.roles[row : row + 1],
        )
        for row in range(len(inputs.roles))
    ]


def means_of(ratios):
    return {(r.block, r.kind, role): m for r in ratios for role, m in ((Role.IMAGE, r.image), (Role.ANSWER, r.answer))}


def test_ratios_are_those_of_one_pass_through_the_whole_model(calibrated):
    family, model, _, prompts = calibrated
    (inputs,) = prompts
    sums = gradient_means(family, model, inputs)
    # to the bit
    assert means_of(modality_ratios(family, model, prompts)) == {
        place: value / len(inputs.roles) for place, value in sums.items()
    }


@pytest.mark.parametrize("together", [1, 2, 3, 5])
def test_ratios_of_groups_of_samples_are_those_of_whole_passes(together, calibrated, monkeypatch, tmp_path):
    family, model, _, (inputs,) = calibrated
    samples = sample_by_sample(inputs)
    sums = {}
    for sample in samples:
        for place, value in gradient_means(family, model, sample).items():
            sums[place] = sums.get(place, 0.0) + value
    held = []

    @contextmanager
    def hold(part):
        held.append(part)
        yield

    states = samples[0].inputs_embeds.nbytes
    store = ActivationStore(tmp_path, together * 4 * states)
    ratios = modality_ratios(family, model, samples, hold, store)
    # to the bit
    assert means_of(ratios) == {place: value / len(samples) for place, value in sums.items()}
    blocks, groups = family.blocks(model, "language"), -(-len(samples) // together)
    assert len(blocks) == 3 and held == [*blocks, "lm_head", *reversed(blocks)] * groups
    assert store.held == 0 and list(tmp_path.iterdir()) == []


def test_groups_take_what_the_budget_holds_and_are_no_more_than_ten():
    # of a model of three blocks a micro-batch keeps four states
    assert [batches_together(20, 100, 3, budget) for budget in (0, 400, 1600, 100_000)] == [2, 2, 4, 20]
    assert [batches_together(count, 100, 3, 0) for count in (1, 10, 11, 128)] == [1, 1, 2, 13]
    assert batches_together(20, 100, 3, None) == 20


def search_in_memory(family, model, processor, scheme, table, quantizers):
    """Search the scales of all components that the scheme selects, before any of them is folded."""
    images = list(vision_batches(family, processor, table))
    encoded = [image for inputs in images for image in family.encode_images(model, inputs)]
    prompts = list(language_batches(family, model, processor, table, encoded))
    ratios = modality_ratios(family, model, prompts) if scheme.method == "mbq" else []
    found = []
    for component in ("vision", "connector", "language"):
        if component not in scheme.components:
            continue
        blocks = family.blocks(model, component)
        if component == "language":
            batches = [
                Batch(
                    partial(decode, family, model, inputs),
                    inputs.roles.flatten() != Role.PAD,
                    {
                        kind: [mbq.token_weights(inputs.roles.flatten(), r.used) for r in ratios if r.kind == kind]
                        # under AWQ every token counts the same
                        or [inputs.attention_mask.flatten().float()] * len(blocks)
                        for kind in mbq.KINDS
                    },
                )
                for inputs in prompts
            ]
        else:
            batches = [Batch(partial(family.encode_images, model, inputs)) for inputs in images]
        groups = {block: family.scale_groups(model, block) for block in blocks}
        power = {"awq": 2, "mbq": 1}[scheme.method]
        for choices in search_stack(model, blocks, groups, batches, quantizers, power, in_memory, ActivationStore()):
            found += choices
    return found


def quantize_in_memory(family, model, processor, scheme, table, quantize, folder, out):
    """Hold the whole model, search its scales if the method does, quantize every layer."""
    plan = build_layer_plan(family, model, scheme)
    chosen = plan.drop_nulls("bits")
    quantizers = {
        row["layer"]: partial(quantize, bits=row["bits"], group_size=row["group"])
        for row in chosen.iter_rows(named=True)
    }
    if scheme.method in ("awq", "mbq"):
        for choice in search_in_memory(family, model, processor, scheme, table, quantizers):
            fold_scale(model, choice.group, choice.scale)
    for name, quantizer in quantizers.items():
        packed = PackedWeight.from_quantized(quantizer(model.get_submodule(name).weight))
        replace_layer(model, name, packed, torch.float32)
    record = dict.fromkeys(("scheme", "settings", "calibration", "modality_ratios", "scales"))
    save_checkpoint(out, model_folder=folder, model=model, layers=plan, record=record)
    return (out / WEIGHTS).read_bytes()


@pytest.mark.parametrize("family_name", FAMILIES)
@pytest.mark.parametrize(
    ("scheme", "quantize"),
    [
        ("rtn-w4g32-full", quantize_rtn),
        ("hqq-w3g64", hqq.quantize),
        ("awq-w3g32-full", quantize_rtn),
        ("mbq-w3g32", quantize_rtn),
        ("mbq-w3g32-full", quantize_rtn),
    ],
)
def test_the_file_is_that_of_a_model_held_in_memory(
    scheme, quantize, family_name, padded_folders, calibration_tables, tmp_path
):
    folder, table = padded_folders[family_name], calibration_tables[family_name]
    quantize_model(folder, scheme, table, tmp_path / "streamed")
    family, model, processor = load_model(folder)
    model.requires_grad_(False)
    expected = quantize_in_memory(
        family, model, processor, parse_scheme(scheme), table, quantize, folder, tmp_path / "plain"
    )
    assert (tmp_path / "streamed" / WEIGHTS).read_bytes() == expected


@pytest.mark.parametrize("scheme", ["mbq-w3g32-full", "gptq-w3g32-full"])
def test_activations_in_files_change_nothing(scheme, model_folders, calibration_tables, tmp_path, caplog):
    folder, table = model_folders["idefics3"], calibration_tables["idefics3"]
    with caplog.at_level("INFO"):
        quantize_model(folder, scheme, table, tmp_path / "memory")
        assert "of files" not in caplog.text
        quantize_model(folder, scheme, table, tmp_path / "files", activation_bytes=0)
        assert "activations went through" in caplog.text
    names = [path.name for path in (tmp_path / "memory").iterdir()]
    assert sorted(names) == sorted(path.name for path in (tmp_path / "files").iterdir())
    for name in names:
        assert (tmp_path / "files" / name).read_bytes() == (tmp_path / "memory" / name).read_bytes()


def in_shards(source: Path, folder: Path) -> Path:
    """Copy a model folder with its weights in three files and, for Qwen2-VL, under the names that are published."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    published = {
        name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")
        if "visual" in "".join(tensors)
        else name: tensor
        for name, tensor in tensors.items()
    }
    index = {}
    for k in range(3):
        shard = f"model-{k + 1:05}-of-00003.safetensors"
        some = dict(list(published.items())[k::3])
        save_file(some, folder / shard, metadata={"format": "pt"})
        index |= dict.fromkeys(some, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return folder


@pytest.mark.parametrize("family_name", FAMILIES)
@pytest.mark.parametrize("scheme", ["rtn-w4g32-mixed", "awq-w4g32"])
def test_weights_in_shards_are_those_of_one_file(scheme, family_name, model_folders, calibration_tables, tmp_path):
    table = calibration_tables[family_name]
    quantize_model(model_folders[family_name], scheme, table, tmp_path / "one")
    quantize_model(in_shards(model_folders[family_name], tmp_path / "shards"), scheme, table, tmp_path / "three")
    assert (tmp_path / "three" / WEIGHTS).read_bytes() == (tmp_path / "one" / WEIGHTS).read_bytes()


def test_faulty_weights_are_named_and_leave_nothing(model_folders, tmp_path):
    def refuse(folder, message):
        with pytest.raises(QuantrustError, match=message) as raised:
            quantize_model(folder, "rtn-w4g32", None, tmp_path / "out")
        assert "\n" not in str(raised.value)
        assert [path.name for path in tmp_path.iterdir()] == ["model"]

    folder = in_shards(model_folders["qwen2_vl"], tmp_path / "model")
    shard = folder / "model-00002-of-00003.safetensors"
    content = shard.read_bytes()
    shard.unlink()
    refuse(folder, r"model-00002-of-00003\.safetensors is missing")
    shard.write_bytes(content)
    tensors = load_file(shard)
    name = next(name for name in tensors if ".mlp." in name)
    save_file(tensors | {name: torch.full_like(tensors[name], torch.nan)}, shard, metadata={"format": "pt"})
    refuse(folder, r"\.mlp\.\S+ holds NaN or infinite values")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    for change, message in (
        (lambda names: names.pop(name), r"1 missing key in the weights \(\S+\.mlp\.\S+\)"),
        (lambda names: names.update(extra=shard.name), r"1 unexpected key in the weights \(extra\)"),
    ):
        named = dict(index["weight_map"])
        change(named)
        kept = {key: tensors.get(key, torch.zeros(1)) for key, file in named.items() if file == shard.name}
        save_file(kept, shard, metadata={"format": "pt"})
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": named}))
        refuse(folder, message)


def test_files_of_activations_are_gone_after_a_failure(model_folders, calibration_tables, tmp_path, monkeypatch):
    def fail(self, part):
        (scratch,) = tmp_path.glob(".out.*.partial/content/scratch")
        assert any(scratch.iterdir())
        raise QuantrustError("the disk is full")

    monkeypatch.setattr("quantrust.quantization.layer_writer.LayerWriter.finish", fail)
    with pytest.raises(QuantrustError, match="the disk is full"):
        quantize_model(
            model_folders["qwen2_vl"], "awq-w4g32", calibration_tables["qwen2_vl"], tmp_path / "out", activation_bytes=0
        )
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_not_there_is_refused(model_folders, tmp_path):
    with pytest.raises(QuantrustError, match="device 'tpu' is unknown; allowed: cpu, cuda"):
        quantize_model(model_folders["qwen2_vl"], "rtn-w4g32", None, tmp_path / "out", "tpu")
    if not torch.cuda.is_available():
        with pytest.raises(QuantrustError, match=r"device is cuda, but torch .* sees no GPU"):
            quantize_model(model_folders["qwen2_vl"], "rtn-w4g32", None, tmp_path / "out", "cuda")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
@pytest.mark.parametrize("scheme", ["hqq-w4g32-full", "mbq-w4g32-full", "gptq-w4g32-full"])
def test_a_gpu_quantizes_to_nearly_the_same_codes(scheme, model_folders, calibration_tables, tmp_path):
    tensors = []
    for device in ("cpu", "cuda"):
        quantize_model(
            model_folders["qwen2_vl"], scheme, calibration_tables["qwen2_vl"], tmp_path / device, device, 1 << 16
        )
        tensors.append(load_file(tmp_path / device / WEIGHTS))
    on_cpu, on_gpu = tensors
    assert on_cpu.keys() == on_gpu.keys()
    codes = [name for name in on_cpu if name.endswith(".codes")]
    equal = sum(int((on_cpu[name] == on_gpu[name]).sum()) for name in codes)
    # sums in another order: a weight between two codes may take the other one
    assert equal > 0.95 * sum(on_cpu[name].numel() for name in codes)


PEAK = """
import re, sys, threading, time
from pathlib import Path
from quantrust.quantization.quantize import quantize_model

peak = 0

def watch():
    # Without the pages of mapped files: how many of a shard's the system maps at a touch is its own choice (once all of
    # its 100 MB), and it takes them back when it needs them.
    global peak
    while True:
        held = int(re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
        peak = max(peak, held * 1024)
        time.sleep(0.002)

threading.Thread(target=watch, daemon=True).start()
quantize_model(*sys.argv[1:])
print(peak)
"""


def peak_of(*arguments) -> int:
    command = [sys.executable, "-c", PEAK, *map(str, arguments)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return int(run.stdout)


@pytest.fixture(scope="module")
def deep_model(model_folders, tmp_path_factory):
    """Qwen2-VL with random weights in bfloat16, in shards: 48 blocks of width 768, half a gigabyte."""
    folder = tmp_path_factory.mktemp("deep") / "model"
    shutil.copytree(model_folders["qwen2_vl"], folder)
    (folder / WEIGHTS).unlink()
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {
        "hidden_size": 768,
        "intermediate_size": 1536,
        "num_hidden_layers": 48,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "layer_types": ["full_attention"] * 48,
        "rope_parameters": config["text_config"]["rope_parameters"] | {"mrope_section": [12, 18, 18]},
    }
    config["vision_config"]["hidden_size"] = 768
    (folder / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        _, skeleton = build_skeleton(folder)
    generator = torch.Generator().manual_seed(0)
    index, shard, held = {}, {}, 0
    tensors = {name: tensor.shape for name, tensor in skeleton.state_dict().items()}
    for number, (name, shape) in enumerate(tensors.items()):
        values = torch.randn(shape, generator=generator)
        shard[name] = (values * shape[-1] ** -0.5 if len(shape) > 1 else 1 + 0.1 * values).bfloat16()
        held += shard[name].nbytes
        if held > 1e8 or number == len(tensors) - 1:
            save_file(shard, folder / f"{number}.safetensors", metadata={"format": "pt"})
            index |= dict.fromkeys(shard, f"{number}.safetensors")
            shard, held = {}, 0
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["hqq-w4g64-full", "mbq-w4g64"])
def test_peak_memory_is_less_than_six_tenths_of_the_model(
    scheme, model_folders, deep_model, calibration_tables, tmp_path
):
    table = tmp_path / "calibration.parquet"
    write_table(calibration_tables["qwen2_vl"], table)
    size = sum(path.stat().st_size for path in deep_model.glob("*.safetensors"))
    assert size > 4e8
    # the libraries, once they have done all of it on next to nothing
    baseline = peak_of(model_folders["qwen2_vl"], scheme, table, tmp_path / "tiny")
    peak = peak_of(deep_model, scheme, table, tmp_path / "out")
    assert (tmp_path / "out" / WEIGHTS).is_file()
    assert peak - baseline < 0.6 * size
