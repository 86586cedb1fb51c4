"""Example questions of every variant: right and wrong answers that a threshold keeps or abstains from."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from quantrust.artifacts.tables import read_table, write_table
from quantrust.data.images import read_image
from quantrust.errors import QuantrustError
from quantrust.evaluation.answers import read_scores
from quantrust.evaluation.calibrators import add_calibrated
from quantrust.evaluation.metrics import CORRECT

SCHEMA = pl.Schema(
    {
        "model": pl.String(),
        "scheme": pl.String(),
        "dataset": pl.String(),
        "kind": pl.String(),
        "question_id": pl.String(),
        "question": pl.String(),
        "answers": pl.List(pl.String),
        "answer": pl.String(),
        "quality": pl.Float64(),
        "confidence": pl.Float64(),
        "threshold": pl.Float64(),
        "picture": pl.Binary(),
        "found": pl.Binary(),
    }
)
KINDS = ("right and kept", "right and abstained", "wrong and abstained", "wrong and kept")
"""What may become of an answer; right is a quality of at least `quantrust.evaluation.metrics.CORRECT`."""
LONGEST_SIDE = 320
"""Pixels that a picture has at most on its longer side."""


@dataclass(frozen=True)
class ExampleSettings:
    """How example questions are drawn.

    Attributes
    ----------
    id_dataset : str
        The ID dataset, whose val answers set the threshold.
    estimator : str
        By whose confidence answers are kept; one of the decisions.
    risk : float
        The risk limit of the threshold; one of the decisions.
    each : int
        Questions at most of a kind, for a variant and dataset.
    seed : int
        Seed of the order.
    matched : bool
        Whether answers are no texts but identifiers, of an image or a caption of the split.
    """

    id_dataset: str
    estimator: str
    risk: float
    each: int
    seed: int
    matched: bool = False


def write_examples(
    questions_paths: Mapping[str, str | Path],
    scores_paths: Mapping[tuple[str, str], str | Path],
    features_paths: Mapping[tuple[str, str, str], str | Path],
    decisions_paths: Mapping[tuple[str, str], str | Path],
    out_path: str | Path,
    settings: ExampleSettings,
) -> None:
    """Draw test questions of every kind for every variant and dataset, with their pictures.

    All variants draw from one random order of the questions, so that variants that agree show the same questions.

    Parameters
    ----------
    questions_paths : mapping of str to str or Path
        Questions table by dataset.
    scores_paths, decisions_paths : mapping of (str, str) to str or Path
        Scores and the table of `quantrust.evaluation.decisions` by model and scheme.
    features_paths : mapping of (str, str, str) to str or Path
        Features by model, scheme and dataset; their answers are shown.
    out_path : str or Path
        Parquet file to write, with the columns of `SCHEMA`. Pictures are WebP files of at most `LONGEST_SIDE` pixels.
        The threshold is null if none keeps the limit, so that nothing is kept. Where answers are matched, captions
        stand in the place of their identifiers, and ``found`` is the picture of the image that was found; a caption
        then has no ``answers``, because ``picture`` is the one that it looks for.
    settings : ExampleSettings

    Raises
    ------
    QuantrustError
        If the decisions lack the estimator or the limit, or a picture cannot be read.
    """
    tables = []
    for dataset, questions_path in questions_paths.items():
        questions = read_table(questions_path).filter(pl.col("split") == "test")
        order = pl.Series([_place(settings.seed, dataset, name) for name in questions["question_id"]], dtype=pl.String)
        questions = questions.with_columns(place=order)
        places = questions.select("question_id", "place")
        asked = questions.select("question_id", "image", "question", "answers")
        for (model, scheme), scores_path in scores_paths.items():
            estimators = [settings.estimator]
            scores = add_calibrated(read_scores(scores_path, estimators), estimators, settings.id_dataset)
            threshold = _threshold(
                decisions_paths[model, scheme], settings.id_dataset, settings.estimator, settings.risk
            )
            given = read_table(features_paths[model, scheme, dataset], columns=["question_id", "split", "answer"])
            right = pl.col("quality") >= CORRECT
            kept = pl.lit(False) if threshold is None else pl.col("confidence") >= threshold
            drawn = (
                scores.filter((pl.col("dataset") == dataset) & (pl.col("split") == "test"))
                .select("question_id", "quality", pl.col(settings.estimator).alias("confidence"))
                .join(places, on="question_id")
                .join(given.filter(pl.col("split") == "test").drop("split"), on="question_id")
                .with_columns(
                    pl.when(right & kept)
                    .then(pl.lit(KINDS[0]))
                    .when(right)
                    .then(pl.lit(KINDS[1]))
                    .when(~kept)
                    .then(pl.lit(KINDS[2]))
                    .otherwise(pl.lit(KINDS[3]))
                    .cast(pl.Enum(KINDS))
                    .alias("kind")
                )
                .sort("kind", "place")
                .group_by("kind", maintain_order=True)
                .head(settings.each)
                # What is shown of a question only for those that are drawn.
                .join(asked, on="question_id", maintain_order="left")
            )
            drawn = drawn.with_columns(found=pl.lit(None, dtype=pl.String))
            if settings.matched:
                drawn = _with_what_was_found(drawn, questions)
            columns = {"model": model, "scheme": scheme, "dataset": dataset}
            tables.append(
                drawn.with_columns(
                    *(pl.lit(value).alias(name) for name, value in columns.items()),
                    pl.lit(threshold, dtype=pl.Float64).alias("threshold"),
                    pl.col("kind").cast(pl.String),
                )
            )
    table = pl.concat(tables)
    shown = pl.concat([table["image"], table["found"].drop_nulls()]).unique(maintain_order=True)
    pictures = {path: _picture(path) for path in shown}
    table = table.with_columns(
        pl.Series(name, [pictures.get(path) for path in table[column]], dtype=pl.Binary)
        for name, column in (("picture", "image"), ("found", "found"))
    )
    write_table(table.select(SCHEMA.names()).cast(SCHEMA), out_path)


def _with_what_was_found(drawn: pl.DataFrame, queries: pl.DataFrame) -> pl.DataFrame:
    """Put captions in the place of their identifiers, and name the file of an image that was found."""
    captions = dict(queries.filter(pl.col("question") != "").select("question_id", "question").iter_rows())
    images = dict(queries.select("image_id", "image").iter_rows())
    found = [images.get(answer) for answer in drawn["answer"]]
    sought = [
        [] if path is not None else [captions.get(name, name) for name in names]
        for path, names in zip(found, drawn["answers"], strict=True)
    ]
    return drawn.with_columns(
        pl.Series("found", found, dtype=pl.String),
        pl.Series("answer", [captions.get(answer, answer) for answer in drawn["answer"]], dtype=pl.String),
        pl.Series("answers", sought, dtype=pl.List(pl.String)),
    )


def _place(seed: int, dataset: str, question_id: str) -> str:
    return hashlib.sha256(f"{seed}\t{dataset}\t{question_id}".encode()).hexdigest()


def _threshold(path: str | Path, id_dataset: str, estimator: str, risk: float) -> float | None:
    rows = read_table(path).filter(
        (pl.col("dataset") == id_dataset) & (pl.col("estimator") == estimator) & (pl.col("risk_limit") == risk)
    )
    if rows.is_empty():
        raise QuantrustError(
            f"{path}: no threshold of {estimator} for a risk limit of {risk}; expected one of the estimators that are "
            "certified, and a limit of the grid in report.limits"
        )
    return rows["threshold"][0]


def _picture(path: str) -> bytes:
    try:
        image = read_image(path)
    except QuantrustError as error:
        raise QuantrustError(f"{path}: {error}; restore the picture that an example question refers to") from None
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    # Pixel art of the embedded datasets and photographs alike: small, and free of visible blocks.
    image.save(buffer, "WEBP", quality=85, method=6)
    return buffer.getvalue()
