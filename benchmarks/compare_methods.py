"""What quantization does to a model inside and to its answers: a table over the checkpoints of a finished study.

Usage: make compare [DATA=data] [MODELS="qwen2-vl-tiny idefics3-tiny"], after `make study`; or for one model
PYTHONPATH=workflow/scripts python benchmarks/compare_methods.py MODEL [--data data] [--dataset scenes] [--samples 64]

`make study ARGS="--configfile config/methods.yaml"` is the study of all five methods.

For every checkpoint of the model: bits per weight; the relative error |h' - h| / |h| of image features and of the
language model's last hidden states (after the final norm, every token that is no padding) on image-caption pairs that
calibrated nothing, and of the states that produce the first answer tokens of the test questions in distribution; the
share of these that are answered as by bf16; soft accuracy and coverage at 5 % risk of `maxprob`, as the study's metrics
have them.
"""

import argparse
from pathlib import Path

import polars as pl
import torch

from measuring import relative_error
from quantrust.artifacts.tables import read_table
from quantrust.files import read_object
from quantrust.quantization.calibration_samples import build_calibration_table, language_batches, vision_batches
from quantrust.quantization.checkpoint import load_checkpoint

REFERENCE = "bf16"
SEED = 1
RISK = 0.05
KEYS = ["question_id", "split"]


def held_out_pairs(data: Path, model: str, dataset: str, samples: int) -> pl.DataFrame:
    """Draw image-caption pairs whose images are not in the calibration table."""
    folder = data / "embedded" / dataset
    calibrated = read_table(data / "calibration" / f"{model}.parquet")["image"].to_list()
    return build_calibration_table(
        data / "models" / model,
        folder / "captions.json",
        folder / "images",
        samples=samples,
        seed=SEED,
        asked_about=[Path(image).relative_to(folder / "images").as_posix() for image in calibrated],
    )


@torch.inference_mode()
def activations(checkpoint: Path, pairs: pl.DataFrame) -> tuple[torch.Tensor, torch.Tensor]:
    """Return image features and last hidden states, rows of tokens, computed in float32."""
    family, model, processor, _ = load_checkpoint(checkpoint)
    encoded = [
        image for inputs in vision_batches(family, processor, pairs) for image in family.encode_images(model, inputs)
    ]
    hidden = []
    for inputs in language_batches(family, model, processor, pairs, encoded):
        states, _ = family.read_prompts(model, inputs)
        hidden.append(states[inputs.attention_mask])
    return torch.cat([image.features for image in encoded]), torch.cat(hidden)


def beside_reference(data: Path, model: str, scheme: str, dataset: str) -> pl.DataFrame:
    """Return answers and answer states of the test questions, those of the unquantized model as `*_right`."""
    columns = [*KEYS, "answer", "answer_state"]
    mine, reference = (
        read_table(data / "features" / model / name / f"{dataset}.parquet", columns) for name in (scheme, REFERENCE)
    )
    return mine.filter(split="test").join(reference, on=KEYS, how="inner", validate="1:1")


def agreement(both: pl.DataFrame) -> float:
    """Return the share of questions with the answer that the unquantized model gives."""
    return (both["answer"] == both["answer_right"]).mean()


def answer_state_error(both: pl.DataFrame) -> float:
    """Return the relative error of the states that produce the first answer tokens, which features hold in float16."""
    found, reference = (
        torch.tensor(both[name].to_list(), dtype=torch.float32) for name in ("answer_state", "answer_state_right")
    )
    return relative_error(found, reference)


def metric(data: Path, model: str, scheme: str, dataset: str, name: str, parameter: float | None) -> float:
    """Return a metric of `maxprob` on the test questions in distribution."""
    rows = read_table(data / "metrics" / model / f"{scheme}.parquet").filter(
        pl.col("parameter").eq_missing(parameter), estimator="maxprob", metric=name, id_share=1, dataset=dataset
    )
    return rows["value"].unique().item()


def main() -> None:
    """Print the table, in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--dataset", default="scenes", help="the embedded dataset in distribution")
    parser.add_argument("--samples", type=int, default=64)
    options = parser.parse_args()
    pairs = held_out_pairs(options.data, options.model, options.dataset, options.samples)
    folder = options.data / "checkpoints" / options.model
    reference = activations(folder / REFERENCE, pairs)
    print(f"{options.model}, {len(pairs)} held-out pairs, {options.dataset}/test\n")
    print(
        "| scheme | bits per weight | image features | hidden states | answer states | agreement | accuracy | C@5 % |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for checkpoint in sorted(folder.iterdir()):
        scheme = checkpoint.name
        size = read_object(checkpoint / "quantization.json")["bytes"]["quantized_bits_per_weight"]
        errors = [relative_error(*both) for both in zip(activations(checkpoint, pairs), reference, strict=True)]
        where = (options.data, options.model, scheme, options.dataset)
        both = beside_reference(*where)
        values = [
            *errors,
            answer_state_error(both),
            agreement(both),
            metric(*where, "accuracy", None),
            metric(*where, "coverage_at_risk", RISK),
        ]
        print(f"| {scheme} | {size or 16:.2f} | " + " | ".join(f"{value:.3f}" for value in values) + " |")


if __name__ == "__main__":
    main()
