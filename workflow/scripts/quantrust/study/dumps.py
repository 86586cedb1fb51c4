"""The answers of a study's variants to its datasets: what each is made from, and with which others a job goes on."""

from collections.abc import Iterator, Mapping
from typing import Any

from quantrust.inference.dumps import Dump
from quantrust.study import paths, settings
from quantrust.study.asked import read_asked
from quantrust.study.contents import Config, variants_of
from quantrust.study.digests import family_code, script_code, task_code
from quantrust.study.inputs import answered_datasets, checked, image_folders, swept_schemes, task_of


def dump_given(config: Config, model: str, dataset: str) -> dict[str, Any]:
    """Return what answers depend on beside files: the config's part in it, and digests of code."""
    return {
        "settings": settings.features(config, model, dataset),
        "task": task_of(config, dataset),
        "code": [script_code("dump_features"), family_code(config, model), task_code(config, dataset)],
    }


def dump_of(config: Config, model: str, scheme: str, dataset: str, begun: int | None = None) -> Dump:
    """Return the answers of a variant to a dataset, for a run that began at a moment in nanoseconds."""
    variant = {"model": model, "scheme": scheme}
    return Dump(
        paths.FEATURES.format(**variant, dataset=dataset),
        paths.MADE_FEATURES.format(**variant, dataset=dataset),
        paths.CHECKPOINT.format(**variant),
        paths.QUESTIONS.format(dataset=dataset),
        tuple(image_folders(config, dataset)),
        dump_given(config, model, dataset),
        begun=begun,
    )


def dumps_beside(config: Config, model: str, scheme: str, dataset: str, given: Mapping[str, Any]) -> Iterator[Dump]:
    """Yield other answers of a model that this run asks for and nobody has made since it began.

    Those of the own variant come first. Each is looked at when its turn has come: it is left out if its checkpoint or
    questions are not there, not checked, or about to be made anew. Cells of a grid are answered by jobs of another
    kind.

    Parameters
    ----------
    config : mapping
        Checked and completed.
    model, scheme, dataset : str
        Of the job that goes on.
    given : mapping
        What its own result depends on beside files. Where this has changed since the run began, as code does that is
        edited, there is none.
    """
    if dump_given(config, model, dataset) != given:
        return
    asked = read_asked()
    cells = swept_schemes(config)
    for variant in dict.fromkeys([scheme, *(name for of, name in variants_of(config) if of == model)]):
        for other in answered_datasets(config):
            features = paths.FEATURES.format(model=model, scheme=variant, dataset=other)
            if features not in asked.files or variant in cells or (variant, other) == (scheme, dataset):
                continue
            dump = dump_of(config, model, variant, other, asked.begun)
            check = checked(config, model, other)
            needed = [dump.checkpoint, dump.questions, *dump.images, *([check] if isinstance(check, str) else check)]
            if asked.can_be_made(dump, needed):
                yield dump
