"""A plain table: an answer a row, with its id, its quality and its confidence.

Columns are ``id``, ``quality`` (or ``correct``) and ``confidence``, and, where there are any, ``image``, ``group`` and
``split``. A user may give others in their place.
"""

from quantrust.data.records import Records
from quantrust.data.table import Column, Read, TableFormat, Wanted, optional_column


def _recognises(records: Records) -> bool:
    return False


def _read(records: Records, wanted: Wanted) -> Read:
    id_name, confidence = wanted.id or "id", wanted.confidence or "confidence"
    quality = wanted.quality or wanted.metric
    if quality is None:
        quality = "correct" if records.has("correct") and not records.has("quality") else "quality"
    return Read(
        records=records,
        id=Column(id_name, records.column(id_name, "--id")),
        quality=Column(quality, records.column(quality, "--quality")),
        confidence=Column(confidence, records.column(confidence, "--confidence")),
        image=optional_column(records, wanted.image, "image", "--image"),
        group=optional_column(records, wanted.group, "group", "--group"),
        split=optional_column(records, wanted.split, "split", "--split"),
    )


TABLE = TableFormat(recognises=_recognises, read=_read)
