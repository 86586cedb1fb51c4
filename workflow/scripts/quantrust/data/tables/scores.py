"""The scores of a study: a file of ``data/scores/``, with one quality and a confidence column for each estimator."""

from quantrust.data.records import Records
from quantrust.data.table import Column, Read, TableFormat, Wanted, choose, no_such, optional_column

KEYS = ("dataset", "split", "question_id", "image_id", "quality")
ESTIMATOR = "maxprob"


def _recognises(records: Records) -> bool:
    return all(name in records.columns for name in KEYS)


def _dataset(records: Records, wanted: Wanted) -> str:
    """Return the dataset whose answers are meant: the one with thresholds, if the user does not say."""
    names = list(map(str, records.columns["dataset"]))
    there_are = list(dict.fromkeys(names))
    if wanted.dataset is not None:
        if wanted.dataset not in there_are:
            raise no_such(records, "dataset", wanted.dataset, there_are, "--dataset")
        return wanted.dataset
    with_val = {name for name, split in zip(names, records.columns["split"], strict=True) if split == "val"}
    found = list(with_val) or there_are
    if len(found) != 1:
        raise choose(records, "dataset", sorted(found), "--dataset")
    return found[0]


def _read(records: Records, wanted: Wanted) -> Read:
    dataset = _dataset(records, wanted)
    kept = records.keep([name == dataset for name in records.columns["dataset"]])
    names = {
        "id": wanted.id or "question_id",
        "quality": wanted.quality or wanted.metric or "quality",
        "confidence": wanted.confidence or ESTIMATOR,
    }
    id_, quality, confidence = (Column(name, kept.column(name, f"--{key}")) for key, name in names.items())
    return Read(
        records=kept,
        id=id_,
        quality=quality,
        confidence=confidence,
        image=optional_column(kept, wanted.image, "image_id", "--image"),
        group=optional_column(kept, wanted.group, None, "--group"),
        split=optional_column(kept, wanted.split, "split", "--split"),
        notes=(f"answers to {dataset}; confidence: the column {confidence.name}",),
    )


TABLE = TableFormat(recognises=_recognises, read=_read)
