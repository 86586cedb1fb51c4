"""A made-up study of one model under any number of schemes, in the files that the workflow writes before the report.

Two variants are made up: the unquantized one and a quantized one. All other schemes are copies of the second, under
their own names where a table holds names. They are copies and no links, because a process reads an unchanged file only
once to check its digest, and knows a link again.
"""

import itertools
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from quantrust.artifacts.row_groups import writing_row_groups
from quantrust.artifacts.tables import read_table, write_table
from quantrust.confidence.catalogue import member_name
from quantrust.data.questions import SCHEMA as QUESTIONS_SCHEMA
from quantrust.data.questions import SKIPPED_SCHEMA
from quantrust.evaluation.mixtures import write_mixtures
from quantrust.files import write_json
from quantrust.quantization.scheme import UNQUANTIZED
from quantrust.study import paths
from quantrust.study.config import study_config

MODEL, ID_DATASET, SHIFT = "qwen2-vl-tiny", "scenes", "scenes-multimodal"
ESTIMATORS = ("maxprob", "maxprob+temperature", "entropy", "selector")
MEMBERS = 5
SHARES = {(ID_DATASET, "dev"): 0.1, (ID_DATASET, "val"): 0.1, (ID_DATASET, "test"): 0.5, (SHIFT, "test"): 0.3}
"""Of all questions, those of each dataset and split."""
PER_IMAGE = 5
"""Questions about an image."""
KINDS = 12
"""Kinds of question, which are groups as the three types of answer are."""
PICTURES = 16
"""Pictures in the place of all images."""
TOP = 20
"""Logits that are kept of the first answer token."""
HIDDEN = 16
"""Channels of a hidden state; a real model has thousands, of which the stages here read none but check every byte."""
ROW_GROUP = 640
"""Questions in a row group of features: those about 128 images."""
LAYERS = 196

NAMED = ("metrics", "curves", "groups", "bins", "certification", "decisions")
"""Tables of one variant in which its name stands."""
OF_ID_DATASET = ("metrics", "curves", "groups", "bins")
"""Those of them of which the ID dataset has a table of its own."""
PATTERNS = {name: getattr(paths, name.upper()) for name in NAMED}


def scheme_names(count: int) -> list[str]:
    """Return so many names of schemes, the unquantized one first; the first of a longer list are those of a shorter."""
    groups, bits = ("g64", "g32", "g128", "g16", "c"), (4, 3, 2, 8, 6, 5)
    tables = itertools.product(("-full", "", "-mixed"), groups, bits, ("", "s"))
    found = [UNQUANTIZED]
    for preset, group, width, symmetric in tables:
        methods = ("rtn", "awq", "mbq", "gptq") if symmetric else ("rtn", "awq", "mbq", "gptq", "hqq")
        found += [f"{method}-w{width}{group}{symmetric}{preset}" for method in methods]
    if count > len(found):
        raise ValueError(f"{count} schemes are more than the {len(found)} that have names")
    return found[:count]


def config_of(variants: int, resamples: int, intervals: int) -> dict[str, Any]:
    """Return the config of a study of so many variants, with so many resamples for comparisons and for intervals."""
    schemes = scheme_names(variants)
    return study_config(
        {
            "study": {
                "models": [MODEL],
                "schemes": schemes,
                "id_dataset": ID_DATASET,
                "shifts": [SHIFT],
                "estimators": list(ESTIMATORS),
            },
            "selector": {"members": MEMBERS},
            "comparison": {"resamples": resamples},
            "evaluation": {"resamples": intervals},
        }
    )


def write_data(questions: int, config: Mapping[str, Any]) -> None:
    """Write the questions of both datasets, pictures, and the mixtures, into the working folder."""
    Path("pictures").mkdir()
    for number in range(PICTURES):
        Image.effect_noise((336, 336), 60 + number).save(f"pictures/{number}.png")
    for dataset in (ID_DATASET, SHIFT):
        write_table(_questions(dataset, questions), paths.QUESTIONS.format(dataset=dataset))
        write_table(pl.DataFrame(schema=SKIPPED_SCHEMA), paths.SKIPPED.format(dataset=dataset))
    write_mixtures(
        *(paths.QUESTIONS.format(dataset=dataset) for dataset in (ID_DATASET, SHIFT)),
        paths.MIXTURES.format(dataset=SHIFT),
        id_shares=config["evaluation"]["id_shares"],
        seed=config["seed"],
    )


def write_answers(scheme: str) -> None:
    """Write the features, scores and checkpoint's record of a variant; fewer bits than 16 lose some answers."""
    tables = []
    for dataset in (ID_DATASET, SHIFT):
        asked = read_table(paths.QUESTIONS.format(dataset=dataset))
        scored, features = _answers(asked, lost=0.0 if scheme == UNQUANTIZED else 0.03)
        tables.append(scored)
        _write_features(features, paths.FEATURES.format(model=MODEL, scheme=scheme, dataset=dataset))
    write_table(pl.concat(tables), paths.SCORES.format(model=MODEL, scheme=scheme))
    _write_checkpoint(scheme)


def add_variants(schemes: list[str], made_up: str, reports: str) -> None:
    """Give every scheme that has no scores yet what a variant has, as copies of one that is made up."""
    for scheme in schemes:
        if Path(paths.SCORES.format(model=MODEL, scheme=scheme)).exists():
            continue
        as_they_are = [paths.SCORES, paths.RESAMPLED.replace("{reports}", reports)]
        as_they_are += [paths.FEATURES.replace("{dataset}", dataset) for dataset in (ID_DATASET, SHIFT)]
        for pattern in as_they_are:
            source, target = (pattern.format(model=MODEL, scheme=name) for name in (made_up, scheme))
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        for name, pattern in PATTERNS.items():
            table = read_table(pattern.format(model=MODEL, scheme=made_up))
            write_named(name, table.with_columns(scheme=pl.lit(scheme)), scheme)
        _write_checkpoint(scheme)


def write_named(name: str, table: pl.DataFrame, scheme: str) -> None:
    """Write a table of a variant, and that of the ID dataset where it has one of its own."""
    path = PATTERNS[name].format(model=MODEL, scheme=scheme)
    write_table(table, path)
    if name in OF_ID_DATASET:
        own = getattr(paths, f"ID_{name.upper()}").format(model=MODEL, scheme=scheme)
        write_table(table.filter(pl.col("dataset") == ID_DATASET), own)


def _parts(dataset: str, questions: int) -> Iterator[tuple[str, int]]:
    for (name, split), share in SHARES.items():
        if name == dataset:
            yield split, round(share * questions)


def _questions(dataset: str, questions: int) -> pl.DataFrame:
    parts = []
    for split, count in _parts(dataset, questions):
        number = np.arange(count)
        kinds = np.random.default_rng(count).integers(KINDS, size=count)
        image = number // PER_IMAGE
        parts.append(
            pl.DataFrame(
                {
                    "question_id": [f"{dataset}-{split}-{one}" for one in number],
                    "dataset": dataset,
                    "split": split,
                    "image_id": [f"{dataset}-{split}-{one}" for one in image],
                    "image": [f"pictures/{one % PICTURES}.png" for one in image],
                    "question": [f"what is to the left of object number {one}?" for one in number],
                    "answers": [["orange"] * 8 + ["red"] * 2] * count,
                    "answer_type": np.array(["number", "other", "yes/no"])[kinds % 3],
                    "question_kind": [f"kind {kind}" for kind in kinds],
                },
                schema=QUESTIONS_SCHEMA,
            )
        )
    return pl.concat(parts)


def _answers(asked: pl.DataFrame, lost: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the scores and the features of a variant, which answers as others do but for some that are lost."""
    count = asked.height
    common, own = np.random.default_rng(count), np.random.default_rng([count, int(100 * lost)])
    ease = common.random(count)
    right = (ease > 0.15) & (own.random(count) >= lost)
    quality = np.where(right, own.choice([0.6, 1.0], p=[0.1, 0.9], size=count), np.where(ease > 0.1, 0.3, 0.0))

    def confidence(weight: float) -> np.ndarray:
        return np.clip(weight * ease + (1 - weight) * own.random(count), 0.0, 1.0)

    keys = asked.select("dataset", "split", "question_id", "image_id", "answer_type", "question_kind")
    members = {member_name("selector", member): confidence(0.7) for member in range(1, MEMBERS)}
    confidences = {"maxprob": confidence(0.6), "entropy": -3.0 * (1 - confidence(0.5)), "selector": confidence(0.7)}
    scored = keys.with_columns(
        quality=pl.Series(quality), **{name: pl.Series(values) for name, values in (confidences | members).items()}
    )
    logits = np.sort(own.normal(0.0, 3.0, size=(count, TOP)).astype(np.float32), axis=1)[:, ::-1]
    ids = (common.integers(5000, size=(count, 1)) + np.arange(TOP)).astype(np.int32)
    features = keys.select("question_id", "dataset", "split", "image_id").with_columns(
        answer=pl.Series(np.where(right, "orange", "red")),
        top_ids=pl.Series(ids, dtype=pl.Array(pl.Int32, TOP)).arr.to_list(),
        top_logits=pl.Series(np.ascontiguousarray(logits), dtype=pl.Array(pl.Float32, TOP)).arr.to_list(),
        log_sum_exp=pl.Series(np.logaddexp.reduce(logits, axis=1) + np.float32(0.01)),
        answer_state=pl.Series(own.normal(size=(count, HIDDEN)).astype(np.float32), dtype=pl.Array(pl.Float32, HIDDEN)),
    )
    return scored, features


def _write_features(features: pl.DataFrame, path: str) -> None:
    table = features.to_arrow()
    notes = {"torch": "2.0", "transformers": "5.0", "weights_sha256": "0" * 64, "device": "cpu", "attention": "sdpa"}
    notes |= {"settings": json.dumps({"dtype": "float32"}), "kernels": json.dumps({"reference": LAYERS})}
    with writing_row_groups(path, table.schema, ["dataset", "split", "answer"]) as writer:
        for start in range(0, len(table), ROW_GROUP):
            writer.write(table.slice(start, ROW_GROUP))
        writer.describe(notes)


def _write_checkpoint(scheme: str) -> None:
    """Write the record of a checkpoint, which is all that the report reads of it."""
    bits = None if scheme == UNQUANTIZED else int(scheme.partition("-w")[2][0])
    whole, kept = 2_000_000, 2_000_000 if bits is None else 125_000 * bits + 60_000
    layer = {"component": "language", "layer_type": "mlp", "rows": 64, "columns": 64, "reason": None}
    layer |= {"bits": bits, "group": None if bits is None else 64, "relative_error": None if bits is None else 0.1}
    record = {
        "scheme": scheme,
        "sha256": "0" * 64,
        "bytes": {
            "weights_file": kept,
            "quantized": 0 if bits is None else 125_000 * bits,
            "unquantized": 60_000,
            "bfloat16": whole,
            "resident": kept,
            "resident_packed": kept,
            "resident_bfloat16": whole,
            "quantized_bits_per_weight": None if bits is None else bits + 0.5,
            "model_bits_per_weight": 16.0 if bits is None else bits + 1.25,
        },
        "calibration": None,
        "layers": [layer] * LAYERS,
    }
    folder = Path(paths.CHECKPOINT.format(model=MODEL, scheme=scheme))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "quantization.json", record)
