"""The code for GPUs on a GPU, in at most eight minutes: what was run, and whether it agrees with the CPU.

Usage: make gpu-check [ARGS="--device cpu"], or
PYTHONPATH=workflow/scripts:tests python benchmarks/gpu_check.py [--device cuda] [--width 7b] [--minutes 8]

It runs the tests that need a GPU. Then it writes a Qwen2-VL-7B of full width with two blocks and random weights,
quantizes it with HQQ and MBQ at 4 bits on the device, decodes one answer, and dumps 200 questions. Each is done on the
CPU as well. What is quantized must have the same codes, but for some that roundings move. Answers, in bfloat16 with the
packed kernels, must be about as near to those of the reference kernel in float32 as the CPU's are.

Prints a table in Markdown. Peak memory is what torch held on a GPU at once, or the resident memory of this process on a
CPU, libraries and all. The exit status is 1 if anything failed, disagreed with the CPU or was not reached in time.

examples:
  make gpu-check                                        the first GPU, at full width
  make gpu-check ARGS="--device cpu --minutes 60"       the same on a CPU; takes 15 GB of disk as well
  make gpu-check ARGS="--device cpu --width 2b"         the width of Qwen2-VL-2B
  make gpu-check ARGS="--device cpu --width mini"       a model of less than a million weights, in a minute
  make gpu-check ARGS="--parts kernels quantize"        not everything
"""

import argparse
import gc
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import polars as pl
import torch
from safetensors.torch import load_file

from measuring import peak_memory, relative_error, reset_peak
from official_files import ask, draw, write_captions
from published_layout import FULL_WIDTH, MINI, write_model_folder
from quantrust.artifacts.tables import read_table, write_table
from quantrust.data.images import read_image
from quantrust.data.questions import SCHEMA
from quantrust.errors import QuantrustError
from quantrust.files import read_object
from quantrust.inference.answering import DTYPES
from quantrust.inference.decoding import Decoded, decode_greedily
from quantrust.inference.features import dump_features
from quantrust.inference.settings import DumpSettings
from quantrust.models.companions import WEIGHTS
from quantrust.models.device import check_device, device_name
from quantrust.models.model_folder import prepare_model
from quantrust.quantization.calibration_samples import build_calibration_table
from quantrust.quantization.checkpoint import RECORD, load_checkpoint
from quantrust.quantization.kernels.packed import describe_kernels
from quantrust.quantization.quantize import quantize_model
from quantrust.tasks.task import load_task

ROOT = Path(__file__).resolve().parents[1]
FAMILY = "qwen2_vl"
WIDTHS = {
    "7b": FULL_WIDTH[FAMILY],
    "2b": replace(FULL_WIDTH[FAMILY], vocabulary=151936, hidden=1536, mlp=8960, heads=12, kv_heads=2),
    "mini": MINI[FAMILY],
}
SCHEMES = ("hqq-w4g64", "mbq-w4g64")
PARTS = ("kernels", "quantize", "decode", "dump")
QUESTIONS, EACH, CAPTIONS = 200, 4, 4
TOKENS, TOKENS_ON_CPU = 64, 8
QUESTIONS_ON_CPU = 40
PIXELS = {"max_pixels": 112 * 112}
KERNEL_TESTS = {
    "cuda": ["-m", "gpu", "tests/quantization", "tests/inference"],
    "cpu": ["-k", "every_code_comes_back and 96-256-64 and not gpu", "tests/quantization/kernels/test_packed.py"],
}
KERNEL_SHARE = 0.4
"""What the tests may take of the time of all."""

LEAST_EQUAL_CODES = {"hqq-w4g64": 0.95, "mbq-w4g64": 0.75}
"""Sums in another order move a weight that lies between two codes. Of two scales that are equally good to six digits,
MBQ may find the other one, which changes the codes of all layers that share it."""
LARGEST_ERROR_CHANGE = 0.02
WAYS = ("device", "cpu", "reference")
"""How answers are made: as a study with packed kernels does on the device and on the CPU, in bfloat16, and by
dequantizing in float32. How far the first two are from the third is compared, because it depends on the model: this one
is random, and a rounding changes some of its answers."""
MOST_TIMES = 2
LOGIT_MARGIN, LOG_PROB_MARGIN, SHARE_MARGIN = 0.01, 0.05, 0.1


@dataclass
class Row:
    """A line of the table."""

    what: str
    agrees: str = "not run"
    by: str = ""
    seconds: float | None = None
    cpu_seconds: float | None = None
    peak: int | None = None

    def cells(self) -> list[str]:
        """Return the line's cells."""
        times = ["" if value is None else f"{value:.1f}" for value in (self.seconds, self.cpu_seconds)]
        return [self.what, self.agrees, self.by, *times, "" if self.peak is None else f"{self.peak / 1e6:,.0f}"]


class OutOfTime(BaseException):
    """Raised in a check when the minutes are over; nothing that a check calls catches it."""


class Check:
    """The checks, one after the other, in one folder.

    Parameters
    ----------
    device : {"cuda", "cpu"}
    width : {"7b", "2b", "mini"}
    folder : Path
        For models, checkpoints and features.
    threads : int
        Of torch on the CPU.
    deadline : float
        By `time.monotonic`.
    """

    def __init__(self, device: str, width: str, folder: Path, threads: int, deadline: float) -> None:
        self.device, self.width, self.folder, self.threads, self.deadline = device, width, folder, threads, deadline
        self.ways = {
            "device": ("bfloat16", "packed", device),
            "cpu": ("bfloat16", "packed", "cpu"),
            "reference": ("float32", "reference", "cpu"),
        }
        self.rows: list[Row] = []
        self.running = False

    @contextmanager
    def measured(self, row: Row) -> Iterator[None]:
        """Note seconds and peak memory of what runs on the device."""
        torch.set_num_threads(self.threads)
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            torch.cuda.synchronize()
        else:
            reset_peak()
        wall, processor = time.perf_counter(), time.process_time()
        yield
        if self.device == "cuda":
            torch.cuda.synchronize()
        row.seconds, row.cpu_seconds = time.perf_counter() - wall, time.process_time() - processor
        row.peak = torch.cuda.max_memory_allocated() if self.device == "cuda" else peak_memory()

    def run(self, what: str, check: Callable[[Row], tuple[bool | None, str]]) -> None:
        """Add a row: whether a check agrees with the CPU, and by how much.

        Parameters
        ----------
        what : str
        check : callable
            Runs within `measured` what counts, and returns whether the results agree, None where there is nothing to
            compare, and by how much.
        """
        row = Row(what)
        self.rows.append(row)
        print(f"{what} ..", file=sys.stderr, flush=True)
        if time.monotonic() >= self.deadline:
            row.by = "no time was left"
            return
        try:
            self.running = True
            agrees, row.by = check(row)
            row.agrees = {True: "yes", False: "**no**", None: ""}[agrees]
        except OutOfTime:
            row.agrees, row.by = "**not finished**", "no time was left"
        # what fails on one machine is for the table, and the other checks go on
        except Exception as error:
            said = (str(error).strip() or "without a message").splitlines()[0]
            row.agrees, row.by = "**failed**", f"{type(error).__name__}: {said[:200]}"
        finally:
            self.running = False

    def kernel_tests(self, row: Row) -> tuple[bool, str]:
        """Run the tests that need the device; on a CPU, some of its kernel's."""
        report = self.folder / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml", str(report)]
        left = KERNEL_SHARE * (self.deadline - time.monotonic())
        started = time.perf_counter()
        try:
            done = subprocess.run(
                [*command, *KERNEL_TESTS[self.device]],
                cwd=ROOT,
                # as the suite runs everywhere: threads that wait for each other take long on a busy machine
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                timeout=left,
            )
        except subprocess.TimeoutExpired:
            return False, f"not finished in {left:.0f} s"
        row.seconds = time.perf_counter() - started
        if not report.exists():
            return False, f"pytest ended with {done.returncode}: {(done.stderr or done.stdout)[-200:]}"
        found = ElementTree.parse(report).getroot().find("testsuite").attrib
        total, skipped = int(found["tests"]), int(found["skipped"])
        wrong = int(found["failures"]) + int(found["errors"])
        if wrong:
            print(done.stdout, file=sys.stderr)
        return (
            wrong == 0 and total > skipped,
            f"{total - skipped - wrong} tests passed, {wrong} failed, {skipped} skipped",
        )

    def write_model(self, row: Row) -> tuple[None, str]:
        """Write and prepare the model, captions and questions."""
        with self.measured(row):
            write_model_folder(self.folder / "source", FAMILY, WIDTHS[self.width])
            prepare_model(self.folder / "source", self.folder / "model", FAMILY, processor=PIXELS)
            names = [f"{number:012d}.jpg" for number in range(3 * CAPTIONS)]
            write_captions(self.folder / "captions.json", self.folder / "captioned", names, seed=5)
            table = build_calibration_table(
                self.folder / "model", self.folder / "captions.json", self.folder / "captioned", CAPTIONS, seed=0
            )
        write_table(table, self.folder / "calibration.parquet")
        rng, rows = random.Random(0), []
        for image in range(QUESTIONS // EACH):
            path = self.folder / "asked" / f"{image}.png"
            drawing = draw(path, image)
            for k in range(EACH):
                question, answer, kind = ask(drawing, rng)
                rows.append(
                    (f"{image}-{k}", "drawn", "test", str(image), str(path), question, [answer] * 10, kind, None)
                )
        questions = pl.DataFrame(rows, schema=SCHEMA, orient="row")
        for place, count in (("device", QUESTIONS), ("cpu", QUESTIONS_ON_CPU)):
            write_table(questions.head(count), self.folder / "questions" / place / "drawn.parquet")
        weights = sum(path.stat().st_size for path in (self.folder / "model").glob("*.safetensors"))
        return None, f"{weights / 1e9:.2f} GB of weights"

    def quantize(self, scheme: str, row: Row) -> tuple[bool, str]:
        """Quantize on the device and on the CPU; compare codes, and the errors of the layers."""
        calibration = self.folder / "calibration.parquet"
        here, there = self.checkpoint(scheme), self.folder / "on-cpu" / scheme
        with self.measured(row):
            quantize_model(self.folder / "model", scheme, calibration, here, self.device)
        quantize_model(self.folder / "model", scheme, calibration, there, "cpu")
        found, expected = load_file(here / WEIGHTS), load_file(there / WEIGHTS)
        names = [name for name in expected if name.endswith(".codes")]
        if found.keys() != expected.keys() or not names:
            return False, "other tensors than on the CPU"
        equal = sum(int((found[name] == expected[name]).sum()) for name in names)
        share = equal / sum(expected[name].numel() for name in names)
        errors = [
            pl.DataFrame(read_object(folder / RECORD)["layers"], infer_schema_length=None)
            .drop_nulls("bits")["relative_error"]
            .to_numpy()
            for folder in (here, there)
        ]
        change = float(abs(errors[0] / errors[1] - 1).max())
        agrees = share >= LEAST_EQUAL_CODES[scheme] and change <= LARGEST_ERROR_CHANGE
        return agrees, f"{share:.2%} of the bytes of codes are equal; errors of layers within {change:.1e}"

    def decode(self, scheme: str, row: Row) -> tuple[bool, str]:
        """Answer one question with the packed kernels; compare the logits of the first token, and the tokens."""
        (ours, kernels), (plain, _), (reference, _) = (self.one_answer(scheme, way, row) for way in WAYS)
        errors = [
            relative_error(found.first_logits.cpu().double(), reference.first_logits.double())
            for found in (ours, plain)
        ]
        expected = reference.token_ids[0]
        pairs = zip(ours.token_ids[0], expected, strict=False)
        same = next((place for place, (token, other) in enumerate(pairs) if token != other), len(expected))
        by = (
            f"logits {errors[0]:.1e} from float32, the CPU's kernels {errors[1]:.1e}; {same} of {len(expected)} tokens "
            f"as in float32; {TOKENS / row.seconds:.3g} tokens a second; {kernels}"
        )
        return errors[0] <= MOST_TIMES * errors[1] + LOGIT_MARGIN, by

    def one_answer(self, scheme: str, way: str, row: Row) -> tuple[Decoded, str]:
        """Decode one answer that no token ends; return it and the kernels."""
        dtype, kernel, device = self.ways[way]
        family, model, processor, _ = load_checkpoint(self.checkpoint(scheme), DTYPES[dtype], kernel, device)
        asked = read_table(self.folder / "questions" / "cpu" / "drawn.parquet").row(0, named=True)
        with torch.inference_mode():
            encoded = family.encode_images(model, family.preprocess(processor, [read_image(asked["image"])]))
            inputs = family.language_inputs(model, processor, [asked["question"]], encoded)
        kernels = ", ".join(f"{name} in {count} layers" for name, count in describe_kernels(model).items())
        if way != "device":
            return decode_greedily(family, model, inputs, end_token_ids=(), max_new_tokens=TOKENS_ON_CPU), kernels
        # kernels are loaded, and chosen, at the first call
        decode_greedily(family, model, inputs, end_token_ids=(), max_new_tokens=2)
        with self.measured(row):
            decoded = decode_greedily(family, model, inputs, end_token_ids=(), max_new_tokens=TOKENS)
        return decoded, kernels

    def dump(self, scheme: str, row: Row) -> tuple[bool, str]:
        """Dump the questions with the packed kernels; compare the first answers and their log-probabilities."""
        with self.measured(row):
            found = self.answers(scheme, "device")
        plain, reference = (self.answers(scheme, way) for way in WAYS[1:])
        shares, changes = zip(*(distance(some, reference) for some in (found, plain)), strict=True)
        by = (
            f"{len(found)} answered; of {len(reference)} {shares[0]:.1%} as in float32, by the CPU's kernels "
            f"{shares[1]:.1%}; log-probabilities of these {changes[0]:.1e} and {changes[1]:.1e} away"
        )
        near = changes[0] <= MOST_TIMES * changes[1] + LOG_PROB_MARGIN
        return len(found) == QUESTIONS and shares[0] >= shares[1] - SHARE_MARGIN and near, by

    def answers(self, scheme: str, way: str) -> pl.DataFrame:
        """Dump questions and return the answers."""
        dtype, kernel, device = self.ways[way]
        out = self.folder / "features" / scheme / way / "drawn.parquet"
        settings = DumpSettings(
            max_new_tokens=3,
            batch_size=50,
            images_per_batch=25,
            images_per_chunk=25,
            dtype=dtype,
            kernel=kernel,
            device=device,
        )
        questions = self.folder / "questions" / ("device" if way == "device" else "cpu") / "drawn.parquet"
        dump_features(self.checkpoint(scheme), questions, out, settings, load_task("vqa"))
        return read_table(out, ["question_id", "answer", "joint_log_prob"])

    def checkpoint(self, scheme: str) -> Path:
        """Return where the checkpoint that the device made lies."""
        return self.folder / "on-device" / scheme


def distance(found: pl.DataFrame, reference: pl.DataFrame) -> tuple[float, float]:
    """Return the share of the reference's answers that were found, and their mean change of log-probability."""
    both = reference.join(found, on="question_id", how="inner", validate="1:1")
    same = both.filter(pl.col("answer") == pl.col("answer_right"))
    change = (same["joint_log_prob"] - same["joint_log_prob_right"]).abs().mean()
    return len(same) / len(reference), float("inf") if change is None else change


def describe_machine(device: str) -> str:
    """Return what the table was made on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    processor = f"{len(os.sched_getaffinity(0))} cores {names[0] if names else platform.machine()}"
    try:
        gemlite = f"gemlite {version('gemlite')}"
    except PackageNotFoundError:
        gemlite = "no gemlite"
    parts = [f"torch {torch.__version__}", gemlite, processor]
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        parts = [f"{device_name(device)} (compute capability {major}.{minor}), CUDA {torch.version.cuda}", *parts]
    return ", ".join(parts)


def print_table(rows: list[Row]) -> None:
    """Print the rows in Markdown."""
    print("| what | agrees with the CPU | by how much | seconds | CPU seconds | peak memory, MB |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(cell.replace('|', '/') for cell in row.cells())} |")


def read_options(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="default: cuda, the first GPU")
    parser.add_argument("--width", choices=tuple(WIDTHS), default="7b", help="of Qwen2-VL (default: 7b)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--minutes", type=float, default=8, help="after which it stops (default: 8)")
    parser.add_argument("--threads", type=int, help="of torch on the CPU (default: torch's own)")
    parser.add_argument("--folder", type=Path, help="where to write models, some 15 GB (default: a temporary one)")
    options = parser.parse_args(arguments)
    if options.minutes <= 0 or (options.threads is not None and options.threads < 1):
        parser.error("--minutes and --threads must be above 0")
    if options.folder is not None and not options.folder.is_dir():
        parser.error(f"--folder {options.folder} is no folder; make it first")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the checks and print the table; return the exit status."""
    options = read_options(arguments)
    try:
        check_device(options.device, "sdpa", torch.bfloat16)
    except QuantrustError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

    def stop(number: int, frame: object) -> None:
        if check.running:
            raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    deadline = time.monotonic() + 60 * options.minutes
    started = time.perf_counter()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        check = Check(options.device, options.width, Path(folder), options.threads or torch.get_num_threads(), deadline)
        rows = check.rows
        signal.setitimer(signal.ITIMER_REAL, 60 * options.minutes)
        try:
            if "kernels" in options.parts:
                check.run("tests of the kernels", check.kernel_tests)
            if set(options.parts) - {"kernels"}:
                check.run(f"two blocks of Qwen2-VL, width {options.width}: written and checked", check.write_model)
            # decoding and dumping read what quantizing wrote
            for scheme in SCHEMES if set(options.parts) - {"kernels"} else ():
                check.run(f"{scheme}: quantized", lambda row, scheme=scheme: check.quantize(scheme, row))
                if "decode" in options.parts:
                    check.run(f"{scheme}: decoding", lambda row, scheme=scheme: check.decode(scheme, row))
                if "dump" in options.parts:
                    check.run(f"{scheme}: {QUESTIONS} questions", lambda row, scheme=scheme: check.dump(scheme, row))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    print(f"\n{describe_machine(options.device)}\n")
    print_table(rows)
    good = all(row.agrees in ("yes", "") for row in rows)
    print(f"\n{'All agree' if good else 'NOT ALL AGREE'}, after {time.perf_counter() - started:.0f} s.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
