"""Calibration samples: images with captions, as tokens whose roles are known.

The table records what a model was calibrated on. Captions come in the ShareGPT4V format: a list of
`{"id", "image", "conversations": [{"from": "human", "value": "<image>\\n..."}, {"from": "gpt", "value": "..."}]}`.
"""

import logging
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import polars as pl
import torch
from PIL import Image
from torch import nn

from quantrust.data.images import find_bad_images, read_image
from quantrust.data.texts import identifier, shown, text
from quantrust.errors import QuantrustError
from quantrust.files import path_inside, read_json
from quantrust.models.family import EncodedImage, Family, LanguageInputs, Role, VisionInputs
from quantrust.models.pictures import preprocess_pictures
from quantrust.models.skeleton import build_skeleton

_log = logging.getLogger(__name__)

CALIBRATION_SCHEMA = pl.Schema(
    {
        "sample_id": pl.String,
        "image_id": pl.String,
        "image": pl.String,
        "prompt": pl.String,
        "answer": pl.String,
        "token_ids": pl.List(pl.Int32),
        "roles": pl.List(pl.Int8),
    }
)
BATCH_SIZE = 16
BATCH_STATES = 1 << 20
"""Numbers in the embeddings of a micro-batch of more than one sample: of a 7B model each sample is one."""
BATCH_PIXELS = 1 << 23
"""Numbers in the preprocessed images of a batch of more than one: 1,700 tokens of Qwen2-VL, 15 tiles of Idefics3."""
IMAGE_MARK = "<image>"
LEAST_ANSWER_TOKENS = 3
"""Without the end token. The loss of a one- or two-token answer hardly reaches the answer's own positions."""


def build_calibration_table(
    model_folder: str | Path,
    captions_json: str | Path,
    images_dir: str | Path,
    samples: int,
    seed: int,
    only: str = "",
    asked_about: Iterable[str] = (),
    on_bad_image: Literal["stop", "skip"] = "stop",
) -> pl.DataFrame:
    """Draw image-caption pairs and tokenize them as the model will see them.

    Parameters
    ----------
    model_folder : str or Path
        Its tokenizer, processor and chat template are used; its weights are not read.
    captions_json : str or Path
        ShareGPT4V format.
    images_dir : str or Path
        The folder that the records' `image` paths start from.
    samples : int
        How many pairs, drawn without replacement and kept in the order of the file.
    seed : int
    only : str
        What the records' `image` paths must begin with, where a file draws on several collections of images.
    asked_about : iterable of str
        Images that questions are asked about: a record of the same picture is never drawn. COCO's pictures are told by
        their numbers, since those of val2014 return in train2017 under other names; others by their files' names.
    on_bad_image : {"stop", "skip"}
        Whether a drawn image that cannot be used (missing, damaged, no image, too thin for the model) is an error, or
        another record is drawn in its place, which is logged.

    Returns
    -------
    polars.DataFrame
        With the columns of `CALIBRATION_SCHEMA`; `image` is `images_dir` with the record's path.

    Raises
    ------
    QuantrustError
        If there are too few records, or a drawn record lacks a field, has not one image, one that cannot be used unless
        they are skipped, or an answer of one or two tokens.
    """
    captions_json = Path(captions_json)
    records = _read_captions(captions_json)
    taken = {_picture(image) for image in asked_about}
    eligible = [
        place
        for place, record in enumerate(records)
        if _image_of(record).startswith(only) and _picture(_image_of(record)) not in taken
    ]
    if not 0 < samples <= len(eligible):
        raise QuantrustError(
            f"{captions_json} holds {len(records)} records, {samples} were asked for and {len(eligible)} may be drawn; "
            "ask for 1 or more and no more than may be drawn"
        )
    family, model = build_skeleton(model_folder)

    def read_pair(place: int) -> dict[str, str]:
        return _read_pair(captions_json, place, records[place], Path(images_dir))

    rows = _draw(eligible, samples, seed, read_pair, family.max_aspect_ratio, on_bad_image)
    table = pl.DataFrame(rows, schema={name: CALIBRATION_SCHEMA[name] for name in rows[0]})
    processor = family.load_processor(str(model_folder))
    image_token = family.image_token(processor)
    width = model.get_submodule(family.embedding).weight.shape[1]
    token_ids, roles = [], []
    for chunk, inputs in _preprocessed(family, processor, table):
        blank = [
            EncodedImage(torch.zeros(placeholder.count(image_token), width), placeholder, grid)
            for placeholder, grid in zip(inputs.placeholders, inputs.grids, strict=True)
        ]
        for ids, kinds in _unpadded(_language_inputs(family, model, processor, chunk, blank)):
            token_ids.append(ids)
            roles.append(kinds)
    table = table.with_columns(
        pl.Series("token_ids", token_ids, pl.List(pl.Int32)), pl.Series("roles", roles, pl.List(pl.Int8))
    )
    try:
        check_calibration(table)
    except QuantrustError as error:
        raise QuantrustError(f"{captions_json}: {error}") from None
    return table


def check_calibration(table: pl.DataFrame) -> None:
    """Raise when a table cannot calibrate a multimodal model.

    Parameters
    ----------
    table : polars.DataFrame

    Raises
    ------
    QuantrustError
        If columns are missing or of another type, the table is empty, or a sample has no image tokens or an answer of
        one or two tokens.
    """
    if table.schema != CALIBRATION_SCHEMA:
        raise QuantrustError(
            f"the calibration table has the columns {dict(table.schema)}, expected {dict(CALIBRATION_SCHEMA)}; "
            "build it again"
        )
    if table.is_empty():
        raise QuantrustError("the calibration table is empty; build it with at least one sample")
    counts = table.select(
        "sample_id",
        image=pl.col("roles").list.count_matches(int(Role.IMAGE)),
        # one of them is the token that ends the answer
        answer=pl.col("roles").list.count_matches(int(Role.ANSWER)).cast(pl.Int64) - 1,
    )
    for name, least, what in (
        ("image", 1, "image tokens: a text-only sample says nothing about images"),
        ("answer", LEAST_ANSWER_TOKENS, "answer tokens: a short answer gives no usable gradient on its own tokens"),
    ):
        short = counts.filter(pl.col(name) < least)
        if not short.is_empty():
            raise QuantrustError(
                f"calibration sample {short['sample_id'][0]!r} (of {len(short)} like it) has {short[name][0]} {what}; "
                "calibrate on captions of images"
            )


def vision_batches(family: Family, processor: Any, table: pl.DataFrame) -> Iterator[VisionInputs]:
    """Read and preprocess the images of a calibration table, `BATCH_SIZE` at a time or as few as pass together.

    `BATCH_PIXELS` and the family's `passes` bound how many do.
    """
    for _, inputs in _preprocessed(family, processor, table):
        yield from family.passes(inputs)


def language_batches(
    family: Family, model: nn.Module, processor: Any, table: pl.DataFrame, images: Iterable[EncodedImage]
) -> Iterator[LanguageInputs]:
    """Put the samples of a calibration table together, `BATCH_SIZE` at a time or as few as `micro_batches` makes them.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
    processor : object
    table : polars.DataFrame
    images : iterable of EncodedImage
        The image of each sample; no more than those of one batch are taken at a time.

    Yields
    ------
    LanguageInputs

    Raises
    ------
    QuantrustError
        If the model's tokenizer or processor yields other tokens or roles than the table records.
    """
    images = iter(images)
    # blocks that divide a prompt among their linears must not find padding in it
    together = BATCH_SIZE if family.has_language_model else 1
    for start in range(0, len(table), together):
        chunk = table[start : start + together]
        inputs = _language_inputs(family, model, processor, chunk, list(islice(images, len(chunk))))
        for row, (ids, roles) in zip(chunk.iter_rows(named=True), _unpadded(inputs), strict=True):
            if ids != row["token_ids"] or roles != row["roles"]:
                raise QuantrustError(
                    f"calibration sample {row['sample_id']!r} has other tokens than when the table was built: "
                    "tokenizer, processor or chat template changed; build the calibration table again"
                )
        yield from micro_batches(inputs)


def micro_batches(batch: LanguageInputs) -> Iterator[LanguageInputs]:
    """Yield the samples of a batch, as many at a time as `BATCH_STATES` allows, without padding that all share.

    Parameters
    ----------
    batch : LanguageInputs
        Padded on the left.

    Yields
    ------
    LanguageInputs
        Views of the batch.
    """
    samples, tokens, width = batch.inputs_embeds.shape
    step = max(1, BATCH_STATES // (tokens * width))
    for start in range(0, samples, step):
        yield batch.part(start, start + step)


def _read_captions(path: Path) -> list[Any]:
    records = read_json(path)
    if not isinstance(records, list):
        raise QuantrustError(f"{path} holds a {type(records).__name__}, expected the list of the ShareGPT4V format")
    return records


def _draw(
    eligible: Sequence[int],
    samples: int,
    seed: int,
    read_pair: Callable[[int], dict[str, str]],
    max_aspect_ratio: float | None,
    on_bad_image: Literal["stop", "skip"],
) -> list[dict[str, str]]:
    """Draw records without replacement until there are enough whose images can be used; in the order of the file."""
    generator, left = random.Random(seed), list(eligible)
    pairs: dict[int, dict[str, str]] = {}
    while len(pairs) < samples:
        if (wanted := samples - len(pairs)) > len(left):
            raise QuantrustError(
                f"only {len(pairs) + len(left)} of {len(eligible)} records that may be drawn have an image that can be "
                f"used, and {samples} were asked for; the log names the others: restore their images or ask for fewer"
            )
        drawn = {place: read_pair(place) for place in sorted(generator.sample(left, wanted))}
        bad = find_bad_images("calibration", dict.fromkeys(pair["image"] for pair in drawn.values()), max_aspect_ratio)
        for pair in drawn.values():
            if pair["image"] in bad:
                _report_bad(pair, bad[pair["image"]], on_bad_image)
        pairs |= {place: pair for place, pair in drawn.items() if pair["image"] not in bad}
        left = [place for place in left if place not in drawn]
    return [pairs[place] for place in sorted(pairs)]


def _report_bad(pair: dict[str, str], reason: str, on_bad_image: Literal["stop", "skip"]) -> None:
    said = f"calibration sample {pair['sample_id']!r}: image {pair['image']} cannot be used: {reason}"
    if on_bad_image == "stop":
        raise QuantrustError(f"{said}; restore it, or set on_bad_image: skip, so that another one is drawn")
    _log.warning("%s; another one is drawn", said)


def _image_of(record: Any) -> str:
    """Return the path of a record's image; nothing for a faulty record, which is refused by name once it is drawn."""
    image = record.get("image") if isinstance(record, dict) else None
    if isinstance(image, list) and len(image) == 1:
        image = image[0]
    return image if isinstance(image, str) else ""


def _picture(path: str) -> int | str:
    """Tell pictures apart: COCO's by the twelve digits at the end of their names, which all its releases share."""
    name = PurePosixPath(path)
    number = re.search(r"(?:^|_)(\d{12})$", name.stem)
    return int(number[1]) if number else name.name


def _read_pair(path: Path, place: int, record: Any, images_dir: Path) -> dict[str, str]:
    where = f"{path}: record {place}"
    if not isinstance(record, dict) or not {"id", "conversations"} <= record.keys():
        raise QuantrustError(f"{where} lacks id or conversations; expected the ShareGPT4V format")
    sample_id = identifier(record["id"], "id", where)
    where += f" (id {shown(record['id'])})"
    if not record.get("image"):
        raise QuantrustError(f"{where} has no image; calibration needs image-caption pairs only")
    name = _image_of(record)
    if not name:
        held = record["image"]
        what = f"{len(held)} images" if isinstance(held, list) and len(held) > 1 else f"the image {shown(held)}"
        raise QuantrustError(f"{where} has {what}; expected the path of one image, or a list of one path")
    text(name, "image", where)
    turns = record["conversations"] if isinstance(record["conversations"], list) else []
    begins = [turn.get("from") if isinstance(turn, dict) else None for turn in turns[:2]]
    if begins != ["human", "gpt"]:
        raise QuantrustError(f"{where} does not begin with a turn from human and one from gpt")
    prompt, answer = (text(turn.get("value"), "value", where) for turn in turns[:2])
    return {
        "sample_id": sample_id,
        "image_id": Path(name).stem,
        "image": path_inside(images_dir, name, where).as_posix(),
        "prompt": prompt.replace(IMAGE_MARK, "").strip(),
        "answer": answer.strip(),
    }


def _preprocessed(family: Family, processor: Any, table: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, VisionInputs]]:
    start, step = 0, BATCH_SIZE
    while start < len(table):
        chunk = table[start : start + step]
        pictures = [_read_image(path) for path in chunk["image"]]
        inputs = preprocess_pictures(
            family, processor, pictures, [f"calibration image {path}" for path in chunk["image"]]
        )
        pixels = sum(tensor.numel() for tensor in inputs.tensors.values())
        if pixels > BATCH_PIXELS and len(chunk) > 1:
            # those to come will be as large
            step = max(1, len(chunk) * BATCH_PIXELS // pixels)
            continue
        yield chunk, inputs
        start += len(chunk)


def _read_image(path: str) -> Image.Image:
    try:
        return read_image(path)
    except QuantrustError as error:
        raise QuantrustError(f"calibration image {path} cannot be used ({error}); restore it") from None


def _language_inputs(
    family: Family, model: nn.Module, processor: Any, chunk: pl.DataFrame, images: list[EncodedImage]
) -> LanguageInputs:
    return family.language_inputs(
        model, processor, chunk["prompt"].to_list(), images, answers=chunk["answer"].to_list()
    )


def _unpadded(inputs: LanguageInputs) -> Iterator[tuple[list[int], list[int]]]:
    """Yield token ids and roles of each sample without padding."""
    for ids, roles in zip(inputs.token_ids, inputs.roles, strict=True):
        real = roles != Role.PAD
        yield ids[real].tolist(), roles[real].tolist()
