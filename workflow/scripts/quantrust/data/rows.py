"""Rows of a dataset of the hub, written out as official files that the official reader reads."""

import hashlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from quantrust.data.official import COCO_IMAGE_NAME, occurs_twice, place_of, reference_answers
from quantrust.data.texts import identifier, shown, text
from quantrust.durable import sync_files
from quantrust.errors import QuantrustError
from quantrust.files import atomic_path, json_text, path_inside, write_json
from quantrust.progress import progress

ROWS_AT_ONCE = 64

_log = logging.getLogger(__name__)


def write_official(files: Sequence[str | Path], form: str, folder: str | Path) -> None:
    """Write Parquet files of rows as official files: ``annotations.json``, ``questions.json`` and ``images/``.

    Parameters
    ----------
    files : sequence of str or Path
        Parquet files as `datasets` writes them, in the order of the rows. Every row has ``question_id``, ``question``,
        ``answers`` (objects with ``answer``, or strings) and ``image``; of VQAv2 also ``image_id``. What else a
        row has is kept among its annotations, as far as JSON can hold it; ``category`` is taken as the ``answer_type``
        where there is none.
    form : {"vqav2", "vizwiz"}
        The official format. VizWiz has all in ``annotations.json``, and its images have their question's identifier as
        their name.
    folder : str or Path
        An identifier with slashes names a file in folders below ``images/``. Files that lie there already and would be
        the same are not written again: a study tells by their times what has changed.

    Raises
    ------
    QuantrustError
        If a file cannot be read, there are no rows, a row lacks what is needed, two images would have one file, or one
        image is two pictures. The message names the file, and the question where it has one.
    """
    folder = Path(folder)
    images = _Images(folder / "images")
    questions: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    asked: set[str] = set()
    for path, number, row in _rows(files, form):
        question_id = identifier(row["question_id"], "question_id", f"{path}: row {number}")
        if question_id in asked:
            raise occurs_twice(path, question_id)
        asked.add(question_id)
        where = place_of(path, question_id)
        text(row["question"], "question", where)
        if isinstance(row["answers"], list):
            row["answers"] = [{"answer": answer} if isinstance(answer, str) else answer for answer in row["answers"]]
        reference_answers(row, where)
        if row.get("answer_type") is None and row.get("category") is not None:
            row["answer_type"] = row["category"]
        image_id = question_id if form == "vizwiz" else identifier(row["image_id"], "image_id", where)
        name = _image_name(row, form)
        images.write(image_id, name, _content(row.pop("image"), where), where)
        if form == "vizwiz":
            # The image is the question's identifier, as it is in the published files.
            del row["question_id"]
            annotations.append({"image": name, **row})
        else:
            keys = ("question_id", "image_id")
            questions.append({**{key: row[key] for key in keys}, "image": name, "question": row.pop("question")})
            annotations.append(row)
    images.sync()
    if not annotations:
        raise QuantrustError(f"{', '.join(map(str, files))}: no rows; expected at least one question")
    if form == "vqav2":
        _write_changed(folder / "questions.json", {"questions": questions})
        _write_changed(folder / "annotations.json", {"annotations": annotations})
    else:
        _write_changed(folder / "annotations.json", annotations)
    _log.info("wrote %d questions to %s", len(annotations), folder)


class _Images:
    """Writes every image once, each to a file of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[Path, tuple[str, str, str]] = {}
        self._written: list[Path] = []

    def write(self, image_id: str, name: str, content: bytes, where: str) -> None:
        path = path_inside(self._folder, name, where)
        digest = hashlib.sha256(content).hexdigest()
        if path not in self._seen:
            self._seen[path] = image_id, digest, where
            self._put(path, content, where)
        other, before, first = self._seen[path]
        if other != image_id:
            raise QuantrustError(
                f"{where}: its image {image_id} would have the file of the image {other} ({first}), {path}; expected a "
                "name of its own for each image"
            )
        if before != digest:
            raise QuantrustError(f"{where}: its image {image_id} is another picture than there ({first}); expected one")

    def sync(self) -> None:
        """Bring to the disk what was written, and the folders in which it is."""
        folders = {parent for path in self._written for parent in path.parents if parent.is_relative_to(self._folder)}
        sync_files([*self._written, *sorted(folders)])

    def _put(self, path: Path, content: bytes, where: str) -> None:
        try:
            if not path.is_file() or path.read_bytes() != content:
                with atomic_path(path, durable=False) as partial:
                    partial.write_bytes(content)
                self._written.append(path)
        except OSError as error:
            raise QuantrustError(f"{where}: its image cannot be written to {path} ({error.strerror})") from None


def _content(image: Any, where: str) -> bytes:
    """Return an image's bytes as they are stored: `datasets` puts them under a key."""
    content = image.get("bytes") if isinstance(image, dict) else image
    if not isinstance(content, bytes) or not content:
        raise QuantrustError(f"{where}: has no image; expected the bytes of one")
    return content


def _write_changed(path: Path, value: Any) -> None:
    """Write a JSON file, or leave the one that is there if it is the same."""
    if not path.is_file() or path.read_bytes() != json_text(value).encode():
        write_json(path, value)


def _rows(files: Sequence[str | Path], form: str) -> Iterator[tuple[str | Path, int, dict[str, Any]]]:
    """Yield every row with its file and its number there, from 1 on."""
    needed = ["question_id", "question", "answers", "image", *(["image_id"] if form == "vqav2" else [])]
    count = 0
    for path in files:
        with _naming(path):
            count += pq.read_metadata(path).num_rows
    with progress("writing rows", count, "rows") as bar:
        for path in files:
            with _naming(path), pq.ParquetFile(path) as file:
                columns = _columns(file.schema_arrow, needed, path)
                number = 0
                for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns):
                    for row in batch.to_pylist():
                        number += 1
                        yield path, number, {name: _plain(value) for name, value in row.items()}
                        bar.update()


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Turn what pyarrow raises about a file into an error that names it."""
    try:
        yield
    # A text that is not UTF-8 is found only when Python decodes it.
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise QuantrustError(f"{path}: cannot be read as rows ({reason}); expected a Parquet file") from None


def _columns(schema: pa.Schema, needed: Sequence[str], path: str | Path) -> list[str]:
    """Return the columns to read: those that are needed, and of the others those that JSON can hold."""
    if missing := [name for name in needed if name not in schema.names]:
        raise QuantrustError(
            f"{path}: has no column {missing[0]}, only {shown(schema.names)}; expected {', '.join(needed)}"
        )
    left_out = [field.name for field in schema if field.name not in needed and not _fits_json(field.type)]
    if left_out:
        _log.warning("%s: leaving out %s, of types that JSON has not", path, ", ".join(left_out))
    return [name for name in schema.names if name not in left_out]


def _fits_json(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(kind) or types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _fits_json(kind.value_type)
    if types.is_struct(kind):
        return all(_fits_json(field.type) for field in kind)
    plain = (types.is_null, types.is_boolean, types.is_integer, types.is_floating, types.is_string)
    return any(test(kind) for test in (*plain, types.is_large_string, types.is_string_view))


def _plain(value: Any) -> Any:
    """Return a value with null in the place of numbers that are not finite, which JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return value


def _image_name(row: Mapping[str, Any], form: str) -> str:
    if form == "vizwiz":
        name = str(row["question_id"])
        return name if PurePosixPath(name).suffix else f"{name}.jpg"
    image_id = row["image_id"]
    return COCO_IMAGE_NAME.format(image_id=image_id) if isinstance(image_id, int) else f"{image_id}.jpg"
