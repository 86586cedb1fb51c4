"""Seconds and memory of the quantizers against straightforward implementations of the same procedures, in one run.

Usage: PYTHONPATH=workflow/scripts python benchmarks/bench_quantization.py [--width 2b] [--blocks N] [--tokens N]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

METHODS = ("mbq", "awq", "gptq", "hqq")
SEARCHES = {"mbq": 1, "awq": 2}
BITS, GROUP_SIZE = 4, 128
HQQ_BITS, HQQ_GROUP_SIZE = (4, 3), 64
# Its Hessian in double precision, and the five matrices of that size that factoring takes, would need 16 GB.
LARGEST_HESSIAN = 8192
NEAR_TIE = 1e-3


def peak_gib():
    """Return the largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def search_fast(model, samples, method):
    """Search scales as `quantize_model` does; return the exponent and scale of each group."""
    from functools import partial

    import torch

    from baselines.stack import FAMILY
    from quantrust.models.family import Role
    from quantrust.quantization import awq, mbq
    from quantrust.quantization.calibration import micro_batches
    from quantrust.quantization.rtn import quantize_rtn
    from quantrust.quantization.scale_search import Batch, search_stack

    prompts = list(micro_batches(samples))
    blocks = FAMILY.blocks(model, "language")
    ratios = mbq.modality_ratios(FAMILY, model, prompts) if method == "mbq" else []
    batches = []
    for inputs in prompts:
        roles = inputs.roles.flatten()
        if method == "mbq":
            weights = {
                kind: [mbq.token_weights(roles, ratio.used) for ratio in ratios if ratio.kind == kind]
                for kind in mbq.KINDS
            }
        else:
            weights = dict.fromkeys(mbq.KINDS, [awq.token_weights(roles)] * len(blocks))
        decode = partial(FAMILY.decode, model, inputs.inputs_embeds, inputs.attention_mask, inputs.position_ids)
        batches.append(Batch(decode, roles != Role.PAD, weights))
    groups = {block: FAMILY.scale_groups(model, block) for block in blocks}
    quantize = partial(quantize_rtn, bits=BITS, group_size=GROUP_SIZE)
    linears = [name for block in blocks for group in groups[block] for name in group.linears]
    with torch.no_grad():
        searches = search_stack(model, blocks, groups, batches, dict.fromkeys(linears, quantize), SEARCHES[method])
        return {
            choice.group.linears[0].split("layers.")[1]: {"exponent": choice.exponent, "scale": choice.scale}
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


def hqq_fast(weight, bits):
    """Return the dequantized weight."""
    from quantrust.quantization.methods.hqq import quantize

    return quantize(weight, bits, HQQ_GROUP_SIZE).dequantize()


def hqq_plain(weight, bits):
    """Return the dequantized weight of the `hqq` package's own layer, on the CPU in float32."""
    import torch
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
    from torch import nn

    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    config = BaseQuantizeConfig(nbits=bits, group_size=HQQ_GROUP_SIZE, axis=1)
    layer = HQQLinear(linear, config, compute_dtype=torch.float32, device="cpu", del_orig=False)
    return layer.dequantize()


def gptq_fast(weights, inputs):
    """Quantize linears that read the same inputs; yield the dequantized weights."""
    from quantrust.quantization.gptq import HessianSum, factor_hessian, quantize_gptq

    total = HessianSum(inputs.shape[1])
    total.add(inputs)
    factor = factor_hessian(total.matrix)
    for weight in weights:
        yield quantize_gptq(weight, factor, BITS, GROUP_SIZE).dequantize()


def gptq_plain(weights, inputs):
    """Quantize each linear by itself; yield the dequantized weights."""
    from baselines.plain_gptq import quantize

    for weight in weights:
        yield quantize(weight, inputs, BITS, GROUP_SIZE)


def timed(function, *arguments):
    """Return the result and the CPU seconds it took: with one thread, what the machine's other work leaves alone."""
    started = time.process_time()
    return function(*arguments), time.process_time() - started


def work(method, implementation, width, blocks, tokens, folder):
    """Run one implementation of one method in this process; return its figures."""
    import torch
    from safetensors.torch import save_file

    from baselines.stack import build_model, build_samples

    torch.set_num_threads(1)
    figures, scales, seconds = {}, {}, 0.0
    model = build_model(width, blocks)
    samples = build_samples(model, width, tokens)
    stack = model.model.language_model.layers
    fast = implementation == "fast"
    loaded = peak_gib()
    if method in SEARCHES:
        chosen, seconds = timed(search_fast if fast else search_plain, model, samples, method)
        scales = {name: choice.pop("scale") for name, choice in chosen.items()}
        figures["groups"] = chosen
    elif method == "hqq":
        errors = {}
        for bits in HQQ_BITS:
            for index, block in enumerate(stack):
                for name, layer in block.named_modules():
                    if isinstance(layer, torch.nn.Linear):
                        restored, spent = timed(hqq_fast if fast else hqq_plain, layer.weight, bits)
                        seconds += spent
                        change = restored.sub_(layer.weight).abs_().mean() / layer.weight.abs().mean()
                        errors[f"{index}.{name} at {bits} bits"] = float(change)
        figures["errors"] = errors
    else:
        errors = {}
        for index, (block, reads) in enumerate(read_inputs(model, samples)):
            for names, inputs in reads:
                weights = [block.get_submodule(name).weight for name in names]
                restored, spent = timed(lambda w=weights, x=inputs: list((gptq_fast if fast else gptq_plain)(w, x)))
                seconds += spent
                for name, weight, other in zip(names, weights, restored, strict=True):
                    change = (inputs @ (other - weight).t()).norm() / (inputs @ weight.t()).norm()
                    errors[f"{index}.{name}"] = float(change)
        figures["errors"] = errors
    save_file(scales, folder / f"{method}-{implementation}.safetensors")
    real = int(samples.attention_mask.sum())
    return figures | {"seconds": seconds, "loaded": loaded, "peak": peak_gib(), "tokens": real}


def read_inputs(model, samples):
    """Yield each block with its groups of linears that read one activation, and that activation of all tokens."""
    import torch

    from baselines.plain_search import run

    groups = (
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("self_attn.o_proj",),
        ("mlp.gate_proj", "mlp.up_proj"),
        ("mlp.down_proj",),
    )
    for block in model.model.language_model.layers:
        read = {}
        hooks = [
            block.get_submodule(names[0]).register_forward_pre_hook(
                lambda module, args, names=names, read=read: read.update({names: args[0][samples.attention_mask]})
            )
            for names in groups
            if block.get_submodule(names[0]).in_features <= LARGEST_HESSIAN
        ]
        with torch.no_grad():
            run(model, samples)
        for hook in hooks:
            hook.remove()
        yield block, list(read.items())


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


def main():
    """Run every method in processes of their own, print a Markdown table and what it rests on."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", choices=("7b", "2b", "small"), default="7b")
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--keep", type=Path, help="folder to keep figures in; what it holds is not measured again")
    parser.add_argument("--worker", nargs=3, metavar=("METHOD", "IMPLEMENTATION", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        method, implementation, folder = options.worker
        figures = work(method, implementation, options.width, options.blocks, options.tokens, Path(folder))
        Path(folder, f"{method}-{implementation}.json").write_text(json.dumps(figures))
        return
    shape = ["--width", options.width, "--blocks", str(options.blocks), "--tokens", str(options.tokens)]
    notes, rows = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for method in options.methods:
            figures = {}
            for implementation in ("plain", "fast"):
                found = folder / f"{method}-{implementation}.json"
                if not found.exists():
                    command = [sys.executable, __file__, *shape, "--worker", method, implementation, str(folder)]
                    subprocess.run(command, check=True)
                figures[implementation] = json.loads(found.read_text())
            plain, fast = figures["plain"], figures["fast"]
            rows.append(
                f"| {method} | {plain['seconds']:.1f} | {fast['seconds']:.1f} "
                f"| {plain['seconds'] / fast['seconds']:.2f} | {plain['peak']:.2f} | {fast['peak']:.2f} "
                f"| {fast['peak'] / plain['peak']:.2f} "
                f"| {(fast['peak'] - fast['loaded']) / (plain['peak'] - plain['loaded']):.2f} |"
            )
            found = compare_searches(method, plain, fast, folder) if method in SEARCHES else compare_errors(plain, fast)
            notes += [f"{method}: {line}" for line in found]
    print(f"{options.blocks} blocks of width {options.width}, {plain['tokens']:,} calibration tokens, one thread\n")
    print("| method | plain, CPU s | fast | times faster | plain, peak GiB | fast | ratio | ratio without the model |")
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join([*rows, "", *notes]))


if __name__ == "__main__":
    main()
