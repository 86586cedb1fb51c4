"""Rows of a dataset of the hub, written out as official files that the official reader reads."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from quantrust.durable import sync_files
from quantrust.errors import QuantrustError
from quantrust.files import atomic_path, json_text, path_inside, write_json
from quantrust.progress import progress
from quantrust.vqa.official import COCO_IMAGE_NAME

_log = logging.getLogger(__name__)


def write_official(files: Sequence[str | Path], form: str, folder: str | Path) -> None:
    """Write Parquet files of rows as official files: ``annotations.json``, ``questions.json`` and ``images/``.

    Parameters
    ----------
    files : sequence of str or Path
        Parquet files as `datasets` writes them, in the order of the rows. Every row has ``question_id``, ``question``,
        ``answers`` (objects with ``answer``, or strings) and ``image``; of VQAv2 also ``image_id``. What else a row has
        is kept among its annotations; ``category`` is taken as the ``answer_type`` where there is none.
    form : {"vqav2", "vizwiz"}
        The official format. VizWiz has all in ``annotations.json``, and its images have their question's identifier as
        their name.
    folder : str or Path
        Files that lie there already and would be the same are not written again: a study tells by their times what has
        changed.

    Raises
    ------
    QuantrustError
        If a file can not be read, or a row lacks what is needed or has no image.
    """
    folder = Path(folder)
    questions, annotations, written = [], [], []
    for row, image, name in _rows(files, form):
        path = path_inside(folder / "images", name, files[0])
        if not path.is_file() or path.read_bytes() != image:
            with atomic_path(path, durable=False) as partial:
                partial.write_bytes(image)
            written.append(path)
        row["answers"] = [{"answer": answer} if isinstance(answer, str) else answer for answer in row["answers"]]
        if row.get("answer_type") is None and row.get("category") is not None:
            row["answer_type"] = row["category"]
        if form == "vizwiz":
            # The image is the question's identifier, as it is in the published files.
            del row["question_id"]
            annotations.append({"image": name, **row})
        else:
            keys = ("question_id", "image_id")
            questions.append({**{key: row[key] for key in keys}, "image": name, "question": row.pop("question")})
            annotations.append(row)
    sync_files(written)
    if form == "vqav2":
        _write_changed(folder / "questions.json", {"questions": questions})
        _write_changed(folder / "annotations.json", {"annotations": annotations})
    else:
        _write_changed(folder / "annotations.json", annotations)
    _log.info("wrote %d questions to %s", len(annotations), folder)


def _write_changed(path: Path, value: Any) -> None:
    """Write a JSON file, or leave the one that is there if it is the same."""
    if not path.is_file() or path.read_bytes() != json_text(value).encode():
        write_json(path, value)


def _rows(files: Iterable[str | Path], form: str) -> Iterator[tuple[dict[str, Any], bytes, str]]:
    """Yield every row without its image, the image's bytes as stored, and the file name that the image gets."""
    paths = [str(path) for path in files]
    needed = ["question_id", "question", "answers", "image", *(["image_id"] if form == "vqav2" else [])]
    try:
        count = sum(pq.read_metadata(path).num_rows for path in paths)
        table = datasets.load_dataset("parquet", data_files={"rows": paths}, split="rows", streaming=True)
        missing = [name for name in needed if name not in table.column_names]
        if missing:
            raise QuantrustError(
                f"{paths[0]}: has no column {missing[0]}, only {', '.join(table.column_names)}; expected "
                f"{', '.join(needed)}"
            )
        table = table.cast_column("image", datasets.Image(decode=False))
        with progress("writing rows", count, "rows") as bar:
            for row in table:
                image = row.pop("image")
                if image is None or not image["bytes"]:
                    raise QuantrustError(f"{paths[0]}: question {row['question_id']}: has no image; expected one")
                yield row, image["bytes"], _image_name(row, form)
                bar.update()
    except (datasets.exceptions.DatasetsError, pa.ArrowException, OSError) as error:
        raise QuantrustError(
            f"{paths[0]}: can not be read as rows ({str(error).splitlines()[0]}); expected Parquet files"
        ) from None


def _image_name(row: Mapping[str, Any], form: str) -> str:
    if form == "vizwiz":
        name = Path(str(row["question_id"])).name
        return name if Path(name).suffix else f"{name}.jpg"
    image_id = row["image_id"]
    return COCO_IMAGE_NAME.format(image_id=image_id) if isinstance(image_id, int) else f"{Path(str(image_id)).name}.jpg"
