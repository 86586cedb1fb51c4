"""The checkpoints of a study: what each is made from, and with which others a job goes on."""

from collections.abc import Iterator, Mapping
from typing import Any

from quantrust.quantization.early_checkpoint import EarlyCheckpoint
from quantrust.study import paths, settings
from quantrust.study.asked import read_asked
from quantrust.study.contents import Config, external_schemes, reads_calibration, variants_of
from quantrust.study.digests import family_code, quantization_code
from quantrust.study.inputs import calibration_images, calibration_table


def checkpoint_given(config: Config, model: str, scheme: str) -> dict[str, Any]:
    """Return what a checkpoint depends on beside files: the config's part in it, and digests of code."""
    return {
        "table": settings.scheme_table(config, scheme),
        "device": config["compute"]["device"],
        "code": [*quantization_code(config, scheme), family_code(config, model)],
    }


def checkpoint_of(config: Config, model: str, scheme: str, begun: int | None = None) -> EarlyCheckpoint:
    """Return the checkpoint of a variant, for a run that began at a moment in nanoseconds."""
    table = calibration_table(config, model, scheme)
    return EarlyCheckpoint(
        paths.CHECKPOINT.format(model=model, scheme=scheme),
        paths.MADE_CHECKPOINT.format(model=model, scheme=scheme),
        scheme,
        paths.MODEL.format(model=model),
        table if isinstance(table, str) else None,
        tuple(calibration_images(config, scheme)),
        checkpoint_given(config, model, scheme),
        begun=begun,
    )


def checkpoints_beside(config: Config, model: str, scheme: str, given: Mapping[str, Any]) -> Iterator[EarlyCheckpoint]:
    """Yield other checkpoints of a model that this run asks for and nobody has made since it began.

    Each is looked at when its turn has come: it is left out if what it is made from is not there, or about to be made
    anew. A scheme that reads no data takes minutes where others take hours, so its job, whose time is limited, leaves
    them out. What others quantized is read by jobs of another kind.

    Parameters
    ----------
    config : mapping
        Checked and completed.
    model, scheme : str
        Of the job that goes on.
    given : mapping
        What its own result depends on beside files. Where this has changed since the run began, as code does that is
        edited, there is none.
    """
    if checkpoint_given(config, model, scheme) != given:
        return
    asked = read_asked()
    apart = {scheme, *external_schemes(config)}
    for other in (name for of, name in variants_of(config) if of == model and name not in apart):
        longer = reads_calibration(config, other) and not reads_calibration(config, scheme)
        if longer or paths.CHECKPOINT.format(model=model, scheme=other) not in asked.files:
            continue
        checkpoint = checkpoint_of(config, model, other, asked.begun)
        calibration = [] if checkpoint.calibration is None else [checkpoint.calibration]
        if asked.can_be_made(checkpoint, [checkpoint.model, *calibration, *checkpoint.images]):
            yield checkpoint
