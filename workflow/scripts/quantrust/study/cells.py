"""The cells of a study's grids: what each is made from, and which others a job goes on with."""

from collections.abc import Iterator, Mapping
from typing import Any

from quantrust.inference.cells import Cell
from quantrust.study import paths, settings
from quantrust.study.contents import Config, scheme_of
from quantrust.study.digests import family_code, quantization_code, script_code, task_code
from quantrust.study.inputs import calibration_images, calibration_table, image_folders, swept_schemes, task_of

SEEING = ("vision", "connector")


def cell_files(config: Config, model: str, scheme: str) -> dict[str, Any]:
    """Return the files and folders that a cell is made from."""
    dataset = config["study"]["id_dataset"]
    return {
        "model": paths.MODEL.format(model=model),
        "questions": paths.QUESTIONS.format(dataset=dataset),
        "calibration": calibration_table(config, model, scheme),
        "images": list(dict.fromkeys([*image_folders(config, dataset), *calibration_images(config, scheme)])),
    }


def cell_given(config: Config, model: str, scheme: str) -> dict[str, Any]:
    """Return what a cell depends on beside files: the config's part in it, and digests of code."""
    dataset = config["study"]["id_dataset"]
    return {
        "table": settings.scheme_table(config, scheme),
        "settings": settings.features(config, model, dataset),
        "task": task_of(config, dataset),
        "device": config["compute"]["device"],
        "code": [
            *quantization_code(config, scheme),
            script_code("answer_cell"),
            family_code(config, model),
            task_code(config, dataset),
        ],
    }


def cell_of(config: Config, model: str, scheme: str) -> Cell:
    """Return a cell of the study."""
    files = cell_files(config, model, scheme)
    variant = {"model": model, "scheme": scheme}
    return Cell(
        scheme,
        files["model"],
        files["questions"],
        files["calibration"] or None,
        tuple(files["images"]),
        cell_given(config, model, scheme),
        paths.FEATURES.format(**variant, dataset=config["study"]["id_dataset"]),
        paths.CELL.format(**variant),
        paths.MADE_CELL.format(**variant),
    )


def cells_beside(config: Config, model: str, scheme: str, given: Mapping[str, Any]) -> Iterator[Cell]:
    """Yield the other cells of a model that the same method quantizes, those first that read pictures alike.

    Parameters
    ----------
    config : mapping
        Checked and completed.
    model, scheme : str
        Of a cell.
    given : mapping
        What its own result depends on beside files. Where this has changed since the run began, as code does that is
        edited, there is none.
    """
    if cell_given(config, model, scheme) != given:
        return
    own = scheme_of(config, scheme)

    def distance(other: str) -> tuple[bool, ...]:
        rows = scheme_of(config, other).table
        parts = [
            [[row for row in table if row.component == component] for table in (own.table, rows)]
            for component in SEEING
        ]
        return tuple(mine != others for mine, others in parts)

    alike = [name for name in swept_schemes(config) if name != scheme and scheme_of(config, name).method == own.method]
    for name in sorted(alike, key=lambda name: (distance(name), _seeing(config, name))):
        yield cell_of(config, model, name)


def _seeing(config: Config, scheme: str) -> list[str]:
    """Return the rows of a scheme that decide how pictures are read, in words."""
    return sorted(str(row) for row in scheme_of(config, scheme).table if row.component in SEEING)
