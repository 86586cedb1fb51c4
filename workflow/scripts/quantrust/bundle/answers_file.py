"""Files of answers: a line an item, written as the work goes on, and continued where it stopped.

Until all items are answered the lines stand in a file beside the final one, in the order in which they were answered.
Questions about the same pictures are answered together, and every item in the batch that an uninterrupted run puts it
into: how often a run was stopped changes no answer.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from quantrust.bundle.items import Chunk, Failure, Item, open_picture
from quantrust.bundle.load import Answer, Bundle
from quantrust.bundle.record import identity
from quantrust.disk import naming_full_disk
from quantrust.errors import QuantrustError
from quantrust.evaluation.operating_points import OperatingPoint
from quantrust.files import atomic_path, parse_json
from quantrust.progress import progress

UNFINISHED = ".unfinished"
"""What the name of a file ends in that is not complete yet."""
SAME = ("image", "question", "bundle", "kind", "risk_limit")
"""Entries of a line that must be those of this run for the line to be kept."""
Line = dict[str, Any]


@dataclass(frozen=True)
class Counts:
    """How many items were answered, abstained from, and could not be answered."""

    answered: int
    abstained: int
    failed: int


def answer_items(
    bundle: Bundle,
    folder: str | Path,
    items: Sequence[Item],
    out_path: str | Path,
    *,
    risk: float | None = None,
    kind: str | None = None,
) -> Counts:
    """Answer items and write a line of JSON for each, in their order.

    Parameters
    ----------
    bundle : Bundle
    folder : str or Path
        Where it was loaded from.
    items : sequence of Item
        Each with an identifier of its own.
    out_path : str or Path
        Where lines of an earlier run are, these items are not answered again.
    risk, kind
        As in `Bundle.answer`.

    Raises
    ------
    QuantrustError
        If there is no such operating point, the lines there are of another bundle, other items or another operating
        point, or another process writes them; or if the disk fills.
    """
    point = bundle.record.point(risk, kind)
    run = {"bundle": identity(folder), "kind": point.kind, "risk_limit": point.risk_limit}
    out_path = Path(out_path)
    unfinished = out_path.with_name(out_path.name + UNFINISHED)
    heads = {item.item_id: {"image": str(item.image), "question": item.question, **run} for item in items}
    with naming_full_disk(out_path), _alone(unfinished) as file:
        lines = _kept_lines(out_path, file, heads)
        with progress("answering", len(items), bundle.record.words.items) as bar:
            bar.update(len(lines))
            for chunk in _chunks(items, lines, bundle.record.settings.images_per_chunk):
                found = {one.item_id: one for one in bundle.answer_chunk(chunk, point)}
                new = {
                    name: {"id": name, **_content(one, point), **heads[name]}
                    for name, one in found.items()
                    if name not in lines
                }
                file.write("".join(map(_text, new.values())).encode())
                file.flush()
                os.fsync(file.fileno())
                lines |= new
                bar.update(len(new))
        with atomic_path(out_path) as partial:
            partial.write_text("".join(_text(lines[item.item_id]) for item in items), encoding="utf-8")
        unfinished.unlink()
    failed = sum("error" in line for line in lines.values())
    answered = sum(line.get("answered", False) for line in lines.values())
    return Counts(answered, len(lines) - answered - failed, failed)


def answer_record(answer: Answer) -> Line:
    """Return what is written of an answer, as plain texts and numbers."""
    point = answer.operating_point
    return {
        "answer": answer.answer,
        "confidence": answer.confidence,
        "answered": answer.answered,
        "threshold": point.threshold,
        "risk_limit": point.risk_limit,
        "kind": point.kind,
        "certified": answer.certified,
        "delta": point.delta,
        "estimator": point.estimator,
        "note": answer.note,
    }


def _content(one: Answer | Failure, point: OperatingPoint) -> Line:
    return {"error": one.error} if isinstance(one, Failure) else answer_record(one)


def _text(line: Line) -> str:
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


@contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    """Yield a file that no other process writes at the same time; what is in it stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise QuantrustError(
                f"{path}: another process writes it; wait for its end, or give another --out"
            ) from None
        try:
            yield file
        finally:
            if path.exists() and path.stat().st_size == 0:
                path.unlink()


def _kept_lines(out_path: Path, unfinished: BinaryIO, heads: Mapping[str | None, Line]) -> dict[str | None, Line]:
    """Return the lines of an earlier run by their items, and cut off one that was not written to its end."""
    lines = {}
    if out_path.is_file():
        lines = _parsed(out_path.read_bytes(), out_path, heads)
    unfinished.seek(0)
    content = unfinished.read()
    whole = content[: content.rfind(b"\n") + 1]
    unfinished.truncate(len(whole))
    return lines | _parsed(whole, Path(unfinished.name), heads)


def _parsed(content: bytes, path: Path, heads: Mapping[str | None, Line]) -> dict[str | None, Line]:
    lines: dict[str | None, Line] = {}
    for number, text in enumerate(content.split(b"\n")[:-1], start=1):
        line = parse_json(text.decode(errors="replace"), f"{path}: line {number}")
        name = line.get("id") if isinstance(line, dict) else None
        if not isinstance(name, str):
            raise QuantrustError(f"{path}: line {number} is no answer of this command; give another --out")
        if name not in heads or any(line.get(key) != heads[name][key] for key in SAME):
            raise QuantrustError(
                f"{path}: line {number} is of other items, another bundle or another operating point; delete the file, "
                "or give another --out"
            )
        lines[name] = line
    return lines


def _chunks(items: Sequence[Item], lines: Mapping[str | None, Line], images_per_chunk: int) -> Iterator[Chunk]:
    """Yield the items that are answered together, where one of them is not answered yet.

    As `quantrust.inference.chunks.cut_into_chunks` does, with only the images that can be used counted: an image with
    an answer is one.
    """
    places: dict[Any, list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(item.image, []).append(place)
    pictures: dict[Any, Any] = {}
    usable = 0
    for image, of_image in places.items():
        known = any("answer" in lines.get(items[place].item_id, {}) for place in of_image)
        picture = None if known else open_picture(image)
        if not isinstance(picture, str):
            if usable == images_per_chunk:
                yield from _chunk(items, lines, places, pictures)
                pictures, usable = {}, 0
            usable += 1
        pictures[image] = picture
    yield from _chunk(items, lines, places, pictures)


def _chunk(
    items: Sequence[Item],
    lines: Mapping[str | None, Line],
    places: Mapping[Any, list[int]],
    pictures: Mapping[Any, Any],
) -> Iterator[Chunk]:
    wanted = sorted(place for image in pictures for place in places[image])
    if all(items[place].item_id in lines for place in wanted):
        return
    chunk = Chunk()
    opened = {image: open_picture(image) if picture is None else picture for image, picture in pictures.items()}
    for place in wanted:
        item = items[place]
        chunk.add(item, item.image, opened[item.image])
    yield chunk
