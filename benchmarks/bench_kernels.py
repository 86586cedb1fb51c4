"""Speed and memory of packed checkpoints of a Qwen2-VL-7B with few blocks, against bfloat16, in one run.

Usage: PYTHONPATH=workflow/scripts python benchmarks/bench_kernels.py [--quick] [--blocks 2] [--parts linear models ...]

Weights are random. Every variant is written as a checkpoint, then loaded and timed in a process of its own, one after
the other; the last table alternates between widths in one process, blocks alone. Times are of the processor where there
is one thread, so that what else runs on the machine disturbs them little, and the least of several calls after one that
does not count: 12 of decoding, 3 of a prefill, 10 in turn; of one linear 7 up to 64 rows of activations and 2 above,
and 2 of the reference.
"""

import argparse
import gc
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
import psutil
import torch
from torch import nn
from torch.nn import functional
from transformers import DynamicCache

from measuring import peak_memory, relative_error, reset_peak
from quantrust.models.skeleton import build_skeleton
from quantrust.quantization.checkpoint import load_checkpoint, save_checkpoint
from quantrust.quantization.kernels.cpu import MOST_ROWS
from quantrust.quantization.kernels.int4_grid import planes
from quantrust.quantization.kernels.packed import describe_kernels, kernel_weight
from quantrust.quantization.layer_plan import build_layer_plan
from quantrust.quantization.linear import PackedWeight, replace_layer
from quantrust.quantization.packing import unpack
from quantrust.quantization.scheme import parse_scheme, resolve_scheme

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "resources" / "models" / "qwen2-vl-tiny"
GROUP = 128
PROMPT = 1024
FULL = {"hidden": 3584, "mlp": 18944, "vocabulary": 152064, "heads": 28, "key_heads": 4, "vision": 1280}
QUICK = {"hidden": 512, "mlp": 1024, "vocabulary": 4096, "heads": 4, "key_heads": 2, "vision": 128}
ROWS = (1, 2, 4, 8, 16, 24, 32, 40, 56, 64, 72, 80, 128, 1024)
# of the blocks, by what they are called
IN_TURN = {"bf16": 16, "8 bits": 8, "4 bits": 4, "3 bits": 3}
TOKENS_BEFORE = (0, 128, 1024)
TURNS = 10
PARTS = ("linear", "models", "turns")
# bits of the blocks, and of head and embedding
VARIANTS = [(16, 16), (8, 16), (8, 8), (8, 4), (4, 16), (4, 8), (4, 4), (3, 16), (3, 8), (3, 4)]


def write_config(folder, shape, blocks):
    """Write a model folder without weights: Qwen2-VL-7B's widths, few blocks, the tokenizer of a tiny model."""
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("*.safetensors", "training.*"))
    config = json.loads((folder / "config.json").read_text())
    width = shape["hidden"] // shape["heads"]
    sections = [width // 8, width * 3 // 16, width * 3 // 16]
    config["text_config"] |= {
        "hidden_size": shape["hidden"],
        "intermediate_size": shape["mlp"],
        "vocab_size": shape["vocabulary"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["key_heads"],
        "num_hidden_layers": blocks,
        "layer_types": ["full_attention"] * blocks,
        "max_position_embeddings": 4096,
        "rope_parameters": {"mrope_section": sections, "rope_theta": 1e6, "rope_type": "default"},
    }
    config["vision_config"] |= {
        "depth": 1,
        "embed_dim": shape["vision"],
        "hidden_size": shape["hidden"],
        "mlp_ratio": 4,
        "num_heads": 16,
    }
    (folder / "config.json").write_text(json.dumps(config))


def write_checkpoint(model_folder, folder, bits, head_bits):
    """Write a checkpoint with random codes and weights."""
    torch.manual_seed(0)
    rows = [("language", bits), ("head", head_bits), ("embedding", head_bits)]
    table = [{"component": component, "bits": width} for component, width in rows if width < 16]
    definition = {"method": "rtn", "group": GROUP, "symmetric": False, "table": table}
    scheme = resolve_scheme("benchmark", definition) if table else parse_scheme("bf16")
    family, model = build_skeleton(model_folder)
    plan = build_layer_plan(family, model, scheme)
    for layer in plan.filter(pl.col("bits").is_not_null()).iter_rows(named=True):
        weight = random_weight(layer["rows"], layer["columns"], layer["bits"])
        replace_layer(model, layer["layer"], weight, torch.bfloat16)
    tile = torch.randn(2**20).mul_(0.02).bfloat16()
    for name, parameter in list(model.named_parameters()):
        parent, _, leaf = name.rpartition(".")
        values = tile.repeat(-(-parameter.numel() // len(tile)))[: parameter.numel()].view(parameter.shape)
        values = torch.ones(parameter.shape, dtype=torch.bfloat16) if "norm" in name and leaf == "weight" else values
        setattr(model.get_submodule(parent), leaf, nn.Parameter(values, requires_grad=False))
    save_checkpoint(
        folder,
        model_folder=model_folder,
        model=model,
        layers=plan.with_columns(relative_error=pl.lit(None, pl.Float64)),
        record={
            "scheme": scheme.name,
            "settings": scheme.settings(),
            "calibration": None,
            "modality_ratios": [],
            "scales": [],
        },
    )


def random_weight(rows, columns, bits):
    """Return a packed weight with random codes."""
    weight = PackedWeight(rows, columns, bits, GROUP)
    tile = torch.randint(0, 256, (2**20,), dtype=torch.uint8)
    count = weight.codes.numel()
    weight.codes = tile.repeat(-(-count // len(tile)))[:count].view(weight.codes.shape)
    weight.scale = torch.full_like(weight.scale, 0.1 / 2**bits)
    weight.zero = torch.full_like(weight.zero, 2 ** (bits - 1) - 0.4)
    return weight


def resident():
    """Return the resident memory of this process in bytes."""
    return psutil.Process().memory_info().rss


def processor():
    """Return the processor's name (Linux)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def seconds(function, repeats):
    """Return the least time that a call takes, after one that does not count."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    function()
    times = []
    for _ in range(repeats):
        started = clock()
        function()
        times.append(clock() - started)
    return min(times)


@torch.inference_mode()
def measure(folder, warm_up):
    """Load a checkpoint and return its sizes, peaks and times; `warm_up` is a small one, loaded first."""
    load_checkpoint(warm_up, torch.bfloat16, "packed")
    gc.collect()
    before = resident()
    reset_peak()
    family, model, _, record = load_checkpoint(folder, torch.bfloat16, "packed")
    loading_peak = peak_memory() - before
    gc.collect()
    loaded = resident() - before
    embedding = model.get_submodule(family.embedding)
    tokens = torch.arange(PROMPT)[None] % 500
    places = torch.arange(PROMPT).expand(3, 1, -1)
    mask = torch.ones(1, PROMPT, dtype=torch.long)
    embeds = embedding(tokens)
    config = model.get_submodule(family.decoder).config

    def prefill(whole):
        cache = DynamicCache(config=config)
        inputs = embedding(tokens) if whole else embeds
        hidden, cache = family.decode(model, inputs, mask, places, cache)
        return cache, family.logits(model, hidden[:, -1]) if whole else hidden

    def decode(cache, whole):
        length = cache.get_seq_length()
        inputs = embedding(tokens[:, :1]) if whole else embeds[:, :1]
        places = torch.full((3, 1, 1), length)
        hidden, _ = family.decode(model, inputs, torch.ones(1, length + 1, dtype=torch.long), places, cache)
        return family.logits(model, hidden[:, -1]) if whole else hidden

    result = {"file": record["bytes"]["weights_file"], "loaded": loaded, "loading_peak": loading_peak}
    result["tensors"] = sum(
        tensor.nbytes for tensor in {id(t): t for t in [*model.parameters(), *model.buffers()]}.values()
    )
    result["kernels"] = describe_kernels(model)
    result["row_blocks"] = 1 / seconds(lambda: decode(DynamicCache(config=config), False), 12)
    for name, whole in (("blocks", False), ("whole", True)):
        result[f"prefill_{name}"] = PROMPT / seconds(lambda whole=whole: prefill(whole), 3)
        cache, _ = prefill(whole)
        result[f"decode_{name}"] = 1 / seconds(lambda whole=whole, cache=cache: decode(cache, whole), 12)
        del cache
    gc.collect()
    result["used"] = resident() - before
    return result


def measured(folder, warm_up):
    """Run `measure` in a process of its own."""
    command = [sys.executable, __file__, "--measure", str(folder), str(warm_up)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


class Int8Groups:
    """An 8-bit weight for torch's int8 CPU kernel, which takes one symmetric scale a row: a product for each group.

    w = (code - 128) * scale + (128 - zero) * scale; the second part is a product of its own, with sums of activations.
    """

    def __init__(self, weight):
        codes = (unpack(weight.codes, 8, weight.columns).short() - 128).char()
        self.codes = [part.contiguous() for part in codes.split(weight.group_size, dim=1)]
        self.scales = list(weight.scale.bfloat16().t().contiguous())
        self.offsets = ((128 - weight.zero) * weight.scale.bfloat16()).t().bfloat16().contiguous()

    def by_groups(self, inputs):
        """Return the product with the weight, groups added up in float32."""
        groups = inputs.unflatten(1, (len(self.codes), -1)).transpose(0, 1).contiguous()
        outputs = (groups.float().sum(dim=-1).t().bfloat16() @ self.offsets).float()
        for group, codes, scale in zip(groups, self.codes, self.scales, strict=True):
            outputs += torch.ops.aten._weight_int8pack_mm(group, codes, scale)
        return outputs.to(inputs.dtype)


def crossover(shape, rows_of_activations=ROWS):
    """Time one linear by rows of activations: torch's int4 and int8 kernels, blocks of weights, plain bfloat16."""
    rows, columns = shape["mlp"], shape["hidden"]
    packed = [random_weight(rows, columns, bits) for bits in (4, 8)]
    weights = [kernel_weight(weight) for weight in packed]
    reference, dense = packed[1], packed[1].dequantize(torch.bfloat16)
    int8 = Int8Groups(reference)
    codes, scale = torch.cat(int8.codes, dim=1), int8.scales[0]
    ways = {
        "bf16": lambda inputs: functional.linear(inputs, dense),
        "4 bits, kernel": weights[0]._by_kernel,
        "4 bits, blocks": weights[0]._by_blocks,
        "8 bits, kernel": weights[1]._by_kernel,
        "8 bits, blocks": weights[1]._by_blocks,
        "8 bits, int8 kernel by groups": int8.by_groups,
        "8 bits, reference": lambda inputs: reference.linear(inputs, None),
        "int8 kernel, one scale a row": lambda inputs: torch.ops.aten._weight_int8pack_mm(inputs, codes, scale),
    }
    print(f"\nOne linear, {columns} to {rows}, group {GROUP}, milliseconds (and times bf16) by rows of activations:\n")
    print(f"| rows | {' | '.join(ways)} |")
    print("|---" * (len(ways) + 1) + "|")
    for count in rows_of_activations:
        inputs = torch.randn(count, columns).bfloat16()
        repeats = 7 if count <= 64 else 2
        taken = {
            name: seconds(
                lambda way=way, inputs=inputs: way(inputs), 2 if way is ways["8 bits, reference"] else repeats
            )
            for name, way in ways.items()
        }
        cells = [
            f"{1e3 * time:.2f}" + f" ({time / taken['bf16']:.2f})" * (name != "bf16") for name, time in taken.items()
        ]
        print(f"| {count} | {' | '.join(cells)} |", flush=True)
    inputs = torch.randn(16, columns).bfloat16()
    exact = inputs.double() @ reference.dequantize(torch.float32).double().t()
    errors = [
        f"{name} {relative_error(ways[name](inputs).double(), exact):.1e}"
        for name in ("bf16", "8 bits, kernel", "8 bits, blocks", "8 bits, int8 kernel by groups")
    ]
    print(f"\nRelative error of 16 rows at 8 bits: {', '.join(errors)}.")
    limits = ", ".join(f"{MOST_ROWS[planes(bits)]} at {bits} bits" for bits in (4, 8))
    print(f"The kernel is used up to so many rows: {limits}.")


@torch.inference_mode()
def alternate(folders):
    """Time decoding with the blocks of checkpoints in turn; return the least seconds a token of each."""
    models = {name: load_checkpoint(folder, torch.bfloat16, "packed")[:2] for name, folder in folders.items()}
    found = {}
    for length in TOKENS_BEFORE:
        steps = {name: _decoding(*model, length) for name, model in models.items()}
        times = {name: [] for name in steps}
        for _ in range(TURNS):
            for name, step in steps.items():
                times[name].append(seconds(step, 1))
        found[length] = {name: min(taken) for name, taken in times.items()}
    return found


def _decoding(family, model, length):
    """Return a function that runs the blocks on one token that comes after so many others."""
    config = model.get_submodule(family.decoder).config
    embeds = model.get_submodule(family.embedding)(torch.arange(length + 1)[None] % 500)
    cache = DynamicCache(config=config)
    if length:
        places = torch.arange(length).expand(3, 1, -1)
        family.decode(model, embeds[:, :-1], torch.ones(1, length, dtype=torch.long), places, cache)
    mask, place = torch.ones(1, length + 1, dtype=torch.long), torch.full((3, 1, 1), length)

    def step():
        family.decode(model, embeds[:, -1:], mask, place, cache)
        cache.crop(-1)

    return step


def print_alternating(found):
    """Print the table of `alternate`."""
    names = list(next(iter(found.values())))
    print(
        f"\nDecoding with the blocks alone, in turn, least of {TURNS}, milliseconds a token (times faster than bf16):\n"
    )
    print(f"| tokens before | {' | '.join(names)} |")
    print("|---" * (len(names) + 1) + "|")
    for length, times in found.items():
        plain = times[names[0]]
        cells = [f"{1e3 * time:.1f}" + f" ({plain / time:.2f})" * (name != names[0]) for name, time in times.items()]
        print(f"| {length:,} | {' | '.join(cells)} |")


def main():
    """Run everything and print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small model, to see that it runs")
    parser.add_argument("--blocks", type=int, default=2, help="language blocks (default 2)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="tables to make (default all)")
    parser.add_argument("--measure", nargs=2, metavar=("CHECKPOINT", "WARM_UP"), help=argparse.SUPPRESS)
    parser.add_argument("--alternate", metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    if options.alternate:
        folders = {name: Path(options.alternate, str(bits)) for name, bits in IN_TURN.items()}
        print_alternating(alternate(folders))
        return
    shape = QUICK if options.quick else FULL
    clock = "processor time" if torch.get_num_threads() == 1 else "wall-clock time"
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"{processor()}, {clock}, {torch.get_num_threads()} thread(s), torch {torch.__version__}, {capability}")
    if "linear" in options.parts:
        crossover(shape)
    print(f"\n{options.blocks} blocks of Qwen2-VL-7B's width, group {GROUP}, {PROMPT} tokens of prompt.")
    with tempfile.TemporaryDirectory() as scratch:
        if "models" in options.parts:
            compare_models(Path(scratch), shape, options.blocks)
        if "turns" in options.parts:
            compare_in_turn(Path(scratch), shape, options.blocks)


def compare_models(scratch, shape, blocks):
    """Write, load and time every variant in a process of its own; print the tables of speed and memory."""
    print("\nTokens/s (times bf16); one row has no prompt before it, decoding has the whole:\n")
    results = {}
    write_config(scratch / "small", QUICK, 1)
    write_checkpoint(scratch / "small", scratch / "warm-up", 4, 4)
    write_config(scratch / "model", shape, blocks)
    for bits, head_bits in VARIANTS:
        write_checkpoint(scratch / "model", scratch / "checkpoint", bits, head_bits)
        results[bits, head_bits] = measured(scratch / "checkpoint", scratch / "warm-up")
        print(bits, head_bits, json.dumps(results[bits, head_bits]), file=sys.stderr, flush=True)
    print_results(results)


def compare_in_turn(scratch, shape, blocks):
    """Write a checkpoint of each width, with few words, so that all fit into memory together, and time them in turn."""
    write_config(scratch / "words", shape | {"vocabulary": QUICK["vocabulary"]}, blocks)
    for bits in IN_TURN.values():
        write_checkpoint(scratch / "words", scratch / "in-turn" / str(bits), bits, 16)
    sys.stdout.flush()
    subprocess.run([sys.executable, __file__, "--alternate", str(scratch / "in-turn")], check=True)


def print_results(results):
    """Print the tables of speed and memory."""
    plain = results[VARIANTS[0]]
    print("| blocks / head and embedding | one row, blocks | decode, blocks | prefill, blocks | decode | prefill |")
    print("|---|---|---|---|---|---|")
    for (bits, head_bits), found in results.items():
        cells = [
            f"{found[key]:.3g} ({found[key] / plain[key]:.2f})"
            for key in ("row_blocks", "decode_blocks", "prefill_blocks", "decode_whole", "prefill_whole")
        ]
        print(f"| {bits} / {head_bits} | {' | '.join(cells)} |")
    print("\nMemory, MB (times the file):\n")
    print(
        "| blocks / head and embedding | file | tensors | peak of loading | resident, loaded | after a forward pass |"
    )
    print("|---|---|---|---|---|---|")
    for (bits, head_bits), found in results.items():
        cells = [
            f"{found[key] / 1e6:,.0f} ({found[key] / found['file']:.3f})"
            for key in ("tensors", "loading_peak", "loaded", "used")
        ]
        print(f"| {bits} / {head_bits} | {found['file'] / 1e6:,.0f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
