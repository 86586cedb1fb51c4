"""Seconds and memory of the quantizers against straightforward implementations of the same procedures, in one run.

Usage: PYTHONPATH=workflow/scripts python benchmarks/bench_quantization.py [--width 2b] [--blocks N] [--tokens N]

Each implementation of each method runs in a process of its own, on one thread, and its peak is the largest resident
memory of that process: libraries, model, samples and all. The plain one holds the whole model in float32, and for MBQ
the gradients of all its weights as well; the package's reads one block at a time from the folder of a model in
bfloat16, as `quantize_model` does, and the time that takes counts. At 7B width the plain implementation needs up to 13
GB and, with 4 blocks, half an hour for MBQ and as much for AWQ.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measuring import peak_memory, relative_error

METHODS = ("mbq", "hqq", "gptq", "awq")
SEARCHES = {"mbq": 1, "awq": 2}
BITS, GROUP_SIZE = 4, 128
HQQ_BITS, HQQ_GROUP_SIZE = (4, 3), 64
NEAR_TIE = 1e-3
MODEL = "model"


def write_model(folder, width, blocks):
    """Write the model into a folder in the Hugging Face layout, in bfloat16."""
    from safetensors.torch import save_file

    from baselines.stack import build_model

    model = build_model(width, blocks)
    folder.mkdir()
    model.config.save_pretrained(folder)
    tensors = {name: tensor.bfloat16() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def open_model(folder, width, tokens):
    """Return the model without its weights, what loads them, a store for activations, and samples."""
    from baselines.stack import FAMILY, build_samples
    from quantrust.models.skeleton import build_skeleton
    from quantrust.models.streamed_weights import StreamedWeights
    from quantrust.quantization.activation_store import ActivationStore
    from quantrust.quantization.quantizing_memory import activation_budget

    family, model = build_skeleton(folder)
    budget = activation_budget({"bfloat16": 2 * sum(parameter.numel() for parameter in model.parameters())})
    store = ActivationStore(folder / "activations", budget)
    weights = StreamedWeights(folder, family, model.requires_grad_(False))
    with weights.loaded(FAMILY.embedding):
        return model, weights, store, build_samples(model, width, tokens)


def search_fast(model, weights, store, samples, method):
    """Search scales as `quantize_model` does; return the exponent and scale of each group."""
    from functools import partial

    import torch

    from baselines.stack import FAMILY
    from quantrust.models.family import Role
    from quantrust.quantization.calibration_samples import micro_batches
    from quantrust.quantization.methods import awq, mbq
    from quantrust.quantization.methods.rtn import quantize_rtn
    from quantrust.quantization.scale_search import Batch, search_stack

    prompts = list(micro_batches(samples))
    blocks = FAMILY.blocks(model, "language")
    ratios = mbq.modality_ratios(FAMILY, model, prompts, weights.loaded, store) if method == "mbq" else []
    batches = []
    for inputs in prompts:
        roles = inputs.roles.flatten()
        if method == "mbq":
            counted = {
                kind: [mbq.token_weights(roles, ratio.used) for ratio in ratios if ratio.kind == kind]
                for kind in mbq.KINDS
            }
        else:
            counted = dict.fromkeys(mbq.KINDS, [awq.token_weights(roles)] * len(blocks))
        batches.append(Batch(partial(decode, model, inputs), roles != Role.PAD, counted))
    groups = {block: FAMILY.scale_groups(model, block) for block in blocks}
    quantize = partial(quantize_rtn, bits=BITS, group_size=GROUP_SIZE)
    linears = [name for block in blocks for group in groups[block] for name in group.linears]
    with torch.no_grad():
        searches = search_stack(
            model, blocks, groups, batches, dict.fromkeys(linears, quantize), SEARCHES[method], weights.loaded, store
        )
        return {
            short(choice.group.linears[0]): {"exponent": choice.exponent, "scale": choice.scale}
            for found in searches
            for choice in found
        }


def search_plain(model, samples, method):
    """Search scales by definition; return the exponent and scale of each group, and all errors."""
    from baselines import plain_search

    ratios = plain_search.modality_ratios(model, samples) if method == "mbq" else None
    chosen = {}
    for names, errors, scales in plain_search.search(model, samples, ratios, SEARCHES[method], BITS, GROUP_SIZE):
        best = errors.index(min(errors))
        chosen[names[0]] = {"exponent": plain_search.EXPONENTS[best], "scale": scales[best], "errors": errors}
    return chosen


def hqq_fast(model, weights):
    """Quantize every linear by HQQ; yield its name, the weight and the dequantized one."""
    from quantrust.quantization.methods.hqq import quantize

    for bits in HQQ_BITS:
        for name in linears_of(model):
            weight = weights.read(f"{name}.weight")
            yield f"{short(name)} at {bits} bits", weight, quantize(weight, bits, HQQ_GROUP_SIZE).dequantize()


def hqq_plain(model):
    """Quantize every linear by the `hqq` package's own layer, on the CPU in float32; yield the same."""
    import torch
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
    from torch import nn

    for bits in HQQ_BITS:
        for name in linears_of(model):
            weight = model.get_submodule(name).weight
            linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
            linear.weight = nn.Parameter(weight, requires_grad=False)
            config = BaseQuantizeConfig(nbits=bits, group_size=HQQ_GROUP_SIZE, axis=1)
            layer = HQQLinear(linear, config, compute_dtype=torch.float32, device="cpu", del_orig=False)
            yield f"{short(name)} at {bits} bits", weight, layer.dequantize()


def gptq_fast(model, weights, store, samples):
    """Quantize every linear by GPTQ as `quantize_model` does; return relative errors by name."""
    from functools import partial

    import torch

    from baselines.stack import FAMILY
    from quantrust.models.family import Role
    from quantrust.quantization.calibration_samples import micro_batches
    from quantrust.quantization.linear import PackedWeight, replace_layer
    from quantrust.quantization.methods.gptq import factor_hessian, quantize_gptq
    from quantrust.quantization.walks.sequential import Steps, quantize_stack

    blocks = FAMILY.blocks(model, "language")
    runs = [(partial(decode, model, inputs), inputs.roles.flatten() != Role.PAD) for inputs in micro_batches(samples)]
    errors = {}

    def quantize_layer(name, factor):
        weight = model.get_submodule(name).weight.detach()
        quantized = quantize_gptq(weight, factor, BITS, GROUP_SIZE)
        errors[short(name)] = relative_error(quantized.dequantize(), weight)
        replace_layer(model, name, PackedWeight.from_quantized(quantized), torch.float32)

    with torch.no_grad():
        quantize_stack(
            model,
            blocks,
            {block: FAMILY.scale_groups(model, block) for block in blocks},
            runs,
            set(linears_of(model)),
            Steps(factor_hessian, quantize_layer, lambda block: None),
            weights.loaded,
            store,
        )
    return errors


def gptq_plain(model, samples):
    """Quantize every linear by GPTQ as published; return relative errors by name."""
    from baselines.plain_gptq import quantize_stack

    found = quantize_stack(model, samples, BITS, GROUP_SIZE)
    return {name: relative_error(restored, weight) for name, weight, restored in found}


def decode(model, inputs):
    """Run the language model on a micro-batch."""
    from baselines.stack import FAMILY

    return FAMILY.read_prompts(model, inputs)[0]


def linears_of(model):
    """Return the names of the linears in the language model's blocks."""
    from torch import nn

    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and ".layers." in name]


def short(name):
    """Return the name of a linear with the number of its block."""
    return name.split("layers.")[1]


def work(method, implementation, width, blocks, tokens, folder):
    """Run one implementation of one method in this process; return its numbers."""
    import torch
    from safetensors.torch import save_file

    from baselines.stack import build_model, build_samples

    torch.set_num_threads(1)
    figures, scales = {"libraries": peak_memory() / 2**30}, {}
    fast = implementation == "fast"
    if fast:
        model, weights, store, samples = open_model(folder / MODEL, width, tokens)
    else:
        model = build_model(width, blocks)
        samples = build_samples(model, width, tokens)
    # the processor's time: with one thread, what the machine's other work leaves alone
    started = time.process_time()
    if method in SEARCHES:
        chosen = search_fast(model, weights, store, samples, method) if fast else search_plain(model, samples, method)
    elif method == "hqq":
        found = hqq_fast(model, weights) if fast else hqq_plain(model)
        errors = {name: float((other - weight).abs().mean() / weight.abs().mean()) for name, weight, other in found}
    else:
        errors = gptq_fast(model, weights, store, samples) if fast else gptq_plain(model, samples)
    figures |= {"seconds": time.process_time() - started, "peak": peak_memory() / 2**30}
    if method in SEARCHES:
        scales = {name: choice.pop("scale") for name, choice in chosen.items()}
        figures["groups"] = chosen
    else:
        figures["errors"] = errors
    save_file(scales, folder / f"{method}-{implementation}.safetensors")
    return figures | {"tokens": int(samples.attention_mask.sum())}


def compare_searches(method, plain, fast, folder):
    """Say where the two chose differently, and how far their scales are apart where they chose the same."""
    from safetensors.torch import load_file

    scales = [load_file(folder / f"{method}-{implementation}.safetensors") for implementation in ("plain", "fast")]
    differing, apart, near = [], 0.0, []
    for name, choice in plain["groups"].items():
        errors, other = choice["errors"], fast["groups"][name]["exponent"]
        best = min(errors)
        runner_up = sorted(errors)[1]
        if other != choice["exponent"]:
            gap = errors[round(other * 20)] / best - 1
            differing.append(f"{name}: {other} for {choice['exponent']}, {gap:.1e} worse")
        else:
            one, two = (side[name] for side in scales)
            apart = max(apart, float(((one - two).abs() / one).max()))
        if runner_up < best * (1 + NEAR_TIE):
            near.append(f"{name} {choice['exponent']}/{errors.index(runner_up) / 20} ({runner_up / best - 1:.0e})")
    count = len(plain["groups"])
    lines = [f"exponents equal in {count - len(differing)} of {count} groups, scales within {apart:.0e} (1e-06)"]
    lines += [f"near-ties (within {NEAR_TIE:.0e}): {', '.join(near) or 'none'}"]
    return lines + [f"differs: {line}" for line in differing]


def compare_errors(plain, fast):
    """Say how the errors of the two compare."""
    ratios = [fast["errors"][name] / error for name, error in plain["errors"].items()]
    mean = sum(ratios) / len(ratios)
    return [f"relative error over plain, {len(ratios)} layers: mean {mean:.5f}, largest {max(ratios):.5f}"]


def measured(method, implementation, options, folder):
    """Return the numbers of a process that does this work, or those that the folder holds already."""
    found = folder / f"{method}-{implementation}.json"
    if not found.exists():
        if implementation == "fast" and not (folder / MODEL).exists():
            run_alone(options, MODEL, MODEL, folder)
        run_alone(options, method, implementation, folder)
    return json.loads(found.read_text())


def run_alone(options, *work):
    """Do some work in a process of its own."""
    shape = ["--width", options.width, "--blocks", str(options.blocks), "--tokens", str(options.tokens)]
    subprocess.run([sys.executable, __file__, *shape, "--worker", *map(str, work)], check=True)


def do_alone(options):
    """Do the work that this process was started for."""
    method, implementation, folder = options.worker
    if method == MODEL:
        write_model(Path(folder, MODEL), options.width, options.blocks)
        return
    figures = work(method, implementation, options.width, options.blocks, options.tokens, Path(folder))
    Path(folder, f"{method}-{implementation}.json").write_text(json.dumps(figures))


def main(arguments=None):
    """Run every method in processes of their own, print a Markdown table and what it rests on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", choices=("7b", "2b", "small"), default="7b")
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--keep", type=Path, help="folder to keep numbers in; what it holds is not measured again")
    parser.add_argument("--worker", nargs=3, metavar=("METHOD", "IMPLEMENTATION", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        do_alone(options)
        return
    notes, rows = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for method in options.methods:
            plain, fast = (measured(method, implementation, options, folder) for implementation in ("plain", "fast"))
            rows.append(
                f"| {method} | {plain['seconds']:.1f} | {fast['seconds']:.1f} "
                f"| {plain['seconds'] / fast['seconds']:.2f} | {plain['peak']:.2f} | {fast['peak']:.2f} "
                f"| {fast['peak'] / plain['peak']:.2f} |"
            )
            found = compare_searches(method, plain, fast, folder) if method in SEARCHES else compare_errors(plain, fast)
            notes += [f"{method}: {line}" for line in found]
    print(
        f"{options.blocks} blocks of width {options.width}, {fast['tokens']:,} calibration tokens, one thread; each "
        f"peak counts {fast['libraries']:.2f} GiB of libraries\n"
    )
    print("| method | plain, CPU s | fast | times faster | plain, peak GiB | fast | ratio |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join([*rows, "", *notes]))


if __name__ == "__main__":
    main()
