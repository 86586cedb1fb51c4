"""Joining the shards of a features file; the bytes are the same as if a single job had written the file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from quantrust.artifacts.row_groups import read_row_groups, read_schema
from quantrust.artifacts.tables import count_rows, table_notes
from quantrust.disk import check_disk
from quantrust.errors import QuantrustError
from quantrust.inference.chunks import chunks_digest
from quantrust.inference.features_file import (
    DEVICE,
    HALVED,
    SHARD,
    corpus_metrics_of,
    features_schema,
    place_of_shard,
    writing_features,
)
from quantrust.inference.settings import DumpSettings


def gather_features(
    shard_paths: Sequence[str | Path],
    questions_path: str | Path,
    out_path: str | Path,
    settings: DumpSettings,
) -> None:
    """Put the shards of a variant and a dataset together.

    Parameters
    ----------
    shard_paths : sequence of str or Path
        All of them, in order, as `quantrust.inference.features.dump_features` writes them.
    questions_path : str or Path
        The questions table that they answer.
    out_path : str or Path
        The features file: the row groups of the shards one after another. Its metadata are theirs, with the halved
        batches added up and the devices listed, and without a shard's place.
    settings : DumpSettings
        What the shards must have been dumped under.

    Raises
    ------
    QuantrustError
        If a shard is missing or damaged, at another place, of another plan, or dumped under other settings, or not of
        the same variant, kernels and library versions as the first.
    """
    every = [table_notes(path) for path in shard_paths]
    planned = {"plan": chunks_digest(questions_path, settings.images_per_chunk), "settings": settings.record()}
    first = {key: value for key, value in every[0].items() if key not in (SHARD, HALVED, DEVICE)}
    for number, (path, notes) in enumerate(zip(shard_paths, every, strict=True), start=1):
        _check(path, notes, planned | {SHARD: place_of_shard(number, len(every))}, "this run")
        _check(path, notes, first, str(shard_paths[0]))
    needed = sum(Path(path).stat().st_size for path in shard_paths)
    check_disk(out_path, needed, "keep fewer logits (features.top_k)")
    described = {key: value for key, value in every[0].items() if key != SHARD}
    described[HALVED] = str(sum(int(notes[HALVED]) for notes in every))
    described[DEVICE] = ", ".join(sorted({notes[DEVICE] for notes in every}))
    rows = 0
    # Not the schema that is read, whose fields are numbered: the file would differ from one that was never shared.
    read = read_schema(shard_paths[0])
    schema = features_schema(read.field("answer_state").type.list_size, corpus_metrics_of(read))
    with writing_features(out_path, schema) as writer:
        for path in shard_paths:
            for table in read_row_groups(path):
                rows += len(table)
                writer.write(table)
        writer.describe(described)
        asked = count_rows(questions_path)
        if rows != asked:
            raise QuantrustError(
                f"{out_path}: its shards answer {rows} questions, but {questions_path} asks {asked}; delete the shards "
                "and run the same command again"
            )


def _check(path: str | Path, notes: Mapping[str, str], expected: Mapping[str, str], whose: str) -> None:
    for key, value in expected.items():
        if notes.get(key) != value:
            raise QuantrustError(
                f"{path} has {key} {notes.get(key)}, but {whose} has {value}: it was dumped by another run; delete it "
                "and run the same command again"
            )
