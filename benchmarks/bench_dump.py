"""Questions that a dump of features answers in a CPU second, against a plain loop in the same run.

Usage: PYTHONPATH=workflow/scripts python benchmarks/bench_dump.py [--images N] [--models M ...] [--rounds N]

The plain loop (`baselines/plain_dump.py`) encodes a picture for each question, reads every prompt whole, and takes
batches of 256 in the order of the table. It finds answers and log-probabilities alone. The dump also judges answers,
pools hidden states, and writes its file. Both load the unquantized model first; imports are left out.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from baselines import plain_dump
from quantrust.artifacts.tables import read_table
from quantrust.data.questions import build_questions_table
from quantrust.embedded.datasets import write_dataset
from quantrust.inference.features import dump_features
from quantrust.inference.settings import DumpSettings
from quantrust.models.model_folder import prepare_model
from quantrust.quantization.checkpoint import load_checkpoint
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.scheme import parse_scheme
from quantrust.study.config import read_study
from quantrust.tasks.task import load_task

MODELS = ("qwen2-vl-tiny", "idefics3-tiny", "llava-tiny", "blip2-tiny")
SETTINGS = DumpSettings()
PLAIN_BATCH = 256


def write_questions(folder, images):
    """Write pictures of the test split of `scenes` and the table of all questions about them; return its path."""
    section = read_study([])["datasets"]["scenes"]
    settings = {key: value for key, value in section.items() if key != "format"} | {
        "images": {"dev": 1, "val": 1, "test": images},
        "captions": 1,
    }
    write_dataset("scenes", folder / "scenes", settings)
    files = {
        "format": "vqav2",
        "questions": folder / "scenes" / "questions_test.json",
        "annotations": folder / "scenes" / "annotations_test.json",
        "images": folder / "scenes" / "images",
    }
    path = folder / "questions" / "scenes.parquet"
    build_questions_table("scenes", {"test": files}, path, folder / "skipped.parquet")
    return path


def write_variant(folder, name):
    """Write the unquantized variant of an embedded model; return its folder."""
    section = read_study([])["models"][name]
    prepare_model(section["source"], folder / "models" / name, section["family"])
    quantize_model(folder / "models" / name, parse_scheme("bf16"), None, folder / "checkpoints" / name)
    return folder / "checkpoints" / name


def plainly(checkpoint, questions):
    """Answer all questions by the plain loop."""
    family, model, processor, _ = load_checkpoint(checkpoint, torch.float32, SETTINGS.kernel, "cpu", SETTINGS.attention)
    return plain_dump.answer(family, model, processor, read_table(questions), SETTINGS.max_new_tokens, PLAIN_BATCH)


def dumped(checkpoint, questions, out):
    """Answer all questions by a dump, and read answers and log-probabilities."""
    dump_features(checkpoint, questions, out, SETTINGS, load_task("vqa"))
    features = read_table(out)
    return features["token_ids"].to_list(), features["joint_log_prob"].to_list()


def timed(function, *arguments):
    """Return what a function returns, and the CPU seconds that it took."""
    begun = time.process_time()
    found = function(*arguments)
    return found, time.process_time() - begun


def main():
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200, help="pictures, with six questions each (default: 200)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--rounds", type=int, default=2, help="both in turn, so often (default: 2)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | questions | plain, a CPU s | dump, a CPU s | times | other answers | log-probabilities apart |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        questions = write_questions(folder, arguments.images)
        count = read_table(questions).height
        for model in arguments.models:
            checkpoint = write_variant(folder, model)
            slow, fast = [], []
            for _ in range(arguments.rounds):
                plain, seconds = timed(plainly, checkpoint, questions)
                slow.append(seconds)
                found, seconds = timed(dumped, checkpoint, questions, folder / "features.parquet")
                fast.append(seconds)
            differ = sum(one != other for one, other in zip(plain[0], found[0], strict=True))
            apart = max(abs(one - other) for one, other in zip(plain[1], found[1], strict=True))
            print(
                f"| {model} | {count:,} | {count / min(slow):.0f} | {count / min(fast):.0f} "
                f"| {min(slow) / min(fast):.2f} | {differ} | {apart:.1e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
