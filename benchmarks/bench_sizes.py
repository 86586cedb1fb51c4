"""What checkpoints of the published models take on disk and in memory, to the byte, worked out from their shapes alone.

Usage: PYTHONPATH=workflow/scripts:tests python benchmarks/bench_sizes.py [--schemes mbq-w4g128-mixed ...]

The file is `model.safetensors`. "Loaded" is what the model's tensors take in bfloat16 with dense codes, and with packed
kernels on a CPU with AVX-512, which hold codes of 2 and 3 bits in 4 and those of 5 and 6 bits in 8.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from published_layout import FULL_WIDTH, model_config
from quantrust.models.skeleton import build_skeleton
from quantrust.quantization.checkpoint import planned_bytes
from quantrust.quantization.layer_plan import build_layer_plan
from quantrust.quantization.scheme import parse_scheme

MODELS = {
    "Qwen2-VL-7B": ("qwen2_vl", replace(FULL_WIDTH["qwen2_vl"], blocks=28, vision_blocks=32)),
    "Idefics3-8B": ("idefics3", replace(FULL_WIDTH["idefics3"], blocks=32, vision_blocks=27)),
}
SCHEMES = ("bf16", "mbq-w8g128-full", "mbq-w4g128", "mbq-w4g128-mixed", "mbq-w4g128-full", "mbq-w3g128-full")
SCHEMES += ("hqq-w4g64-full", "hqq-w3g64-full", "hqq-w2g64-full")
TARGETS = {"mbq-w4g128-mixed": 0.67, "mbq-w4g128-full": 0.72}


def sizes(folder, scheme):
    """Return the sizes of the checkpoint that a scheme makes of the model whose `config.json` is in a folder."""
    family, model = build_skeleton(folder)
    return planned_bytes(family, model, build_layer_plan(family, model, parse_scheme(scheme)))


def print_table(models, schemes):
    """Print what each scheme makes of each model, against the unquantized one, in Markdown."""
    print(
        "| model | scheme | file, bytes | smaller than bf16 | bits per weight | loaded, bytes | with packed kernels |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, (family, size) in models.items():
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "config.json").write_text(json.dumps(model_config(family, size)))
            plain = sizes(folder, "bf16")["weights_file"]
            for scheme in schemes:
                found = sizes(folder, scheme)
                saved = f"{100 * (1 - found['weights_file'] / plain):.1f} %"
                saved += f" ({100 * TARGETS[scheme]:.0f} %)" if scheme in TARGETS else ""
                print(
                    f"| {name} | {scheme} | {found['weights_file']:,} | {saved} | {found['model_bits_per_weight']:.2f} "
                    f"| {found['resident']:,} | {found['resident_packed']:,} |"
                )


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schemes", nargs="+", default=SCHEMES)
    print_table(MODELS, parser.parse_args().schemes)
    print("\nIn brackets what is to be reached at least.")


if __name__ == "__main__":
    main()
