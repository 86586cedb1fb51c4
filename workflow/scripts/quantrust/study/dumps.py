"""The answers of a study's variants to its datasets: what each is made from, and which the jobs of a run share.

When a run begins, the answers that it asks for are noted; when it ends, the note goes. A run that is killed leaves its
note to the next one, which begins with one of its own. A job that answers one dataset goes on with the others of its
variant that are noted. Without a note, as in a workflow that uses this one as a module, every job makes its own alone.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from quantrust.files import atomic_path
from quantrust.inference.dumps import Dump
from quantrust.study import paths, settings
from quantrust.study.contents import Config
from quantrust.study.digests import family_code, script_code, task_code
from quantrust.study.inputs import answered_datasets, checked, image_folders, swept_schemes, task_of


def dump_given(config: Config, model: str, dataset: str) -> dict[str, Any]:
    """Return what answers depend on beside files: the config's part in it, and digests of code."""
    return {
        "settings": settings.features(config, model, dataset),
        "task": task_of(config, dataset),
        "code": [script_code("dump_features"), family_code(config, model), task_code(config, dataset)],
    }


def dump_of(config: Config, model: str, scheme: str, dataset: str) -> Dump:
    """Return the answers of a variant to a dataset."""
    variant = {"model": model, "scheme": scheme}
    return Dump(
        paths.CHECKPOINT.format(**variant),
        paths.QUESTIONS.format(dataset=dataset),
        tuple(image_folders(config, dataset)),
        dump_given(config, model, dataset),
        paths.FEATURES.format(**variant, dataset=dataset),
        paths.MADE_FEATURES.format(**variant, dataset=dataset),
    )


def note_asked(features: Iterable[str]) -> None:
    """Write down the features files that a run asks for, in the place of what an earlier one asked for."""
    with atomic_path(paths.ASKED) as note:
        note.write_text("\n".join(sorted(features)), encoding="utf-8")


def forget_asked() -> None:
    """Remove the note of a run that has ended, so that no job of another goes by it."""
    Path(paths.ASKED).unlink(missing_ok=True)


def dumps_beside(config: Config, model: str, scheme: str, dataset: str) -> Iterator[Dump]:
    """Yield the answers of a variant to other datasets that this run asks for and nobody has made since it began.

    Those whose questions are not there yet, or not checked, are left out. Cells of a grid are answered by jobs of
    another kind.

    Parameters
    ----------
    config : mapping
        Checked and completed.
    model, scheme, dataset : str
        Of the job that goes on.
    """
    if scheme in swept_schemes(config):
        return
    # the run may end at any moment, as one does that only hands its jobs to a cluster
    try:
        with open(paths.ASKED, encoding="utf-8", errors="replace") as note:
            asked, begun = set(note.read().splitlines()), os.fstat(note.fileno()).st_mtime_ns
    except FileNotFoundError:
        return
    for other in answered_datasets(config):
        if other == dataset or paths.FEATURES.format(model=model, scheme=scheme, dataset=other) not in asked:
            continue
        dump = replace(dump_of(config, model, scheme, other), begun=begun)
        if dump.is_there():
            continue
        check = checked(config, model, other)
        needed = [dump.questions, *dump.images, *([check] if isinstance(check, str) else check)]
        if all(Path(file).exists() for file in needed):
            yield dump
