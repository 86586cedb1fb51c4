"""Whether what lies of a study on the disk is what was written, artifact by artifact."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantrust.artifacts.documents import check_document
from quantrust.artifacts.folder_record import check_folder
from quantrust.artifacts.parquet_seal import check_seal
from quantrust.errors import QuantrustError
from quantrust.progress import progress
from quantrust.study import paths
from quantrust.study.contents import models_with, of_variants
from quantrust.study.jobs import study_downloads, study_jobs


@dataclass(frozen=True)
class Integrity:
    """What was found of a study's artifacts.

    Attributes
    ----------
    whole, absent : list of str
        Paths of those that are as they were written, and of those that are not there and that a study always has.
    damaged : dict of str to str
        What is wrong, by path; a path is also the target that builds it anew.
    """

    whole: list[str]
    absent: list[str]
    damaged: dict[str, str]


def study_files(config: Mapping[str, Any]) -> list[str]:
    """Return the paths of all artifacts of a study, in the order of its stages, with records of its downloads.

    Parameters
    ----------
    config : mapping
        Checked.
    """
    return list(
        dict.fromkeys([*study_downloads(config), *(path for job in study_jobs(config) for path in job.outputs)])
    )


def files_on_request(config: Mapping[str, Any]) -> list[str]:
    """Return the paths of artifacts that a study has only if they are asked for: models trained here, and bundles.

    Parameters
    ----------
    config : mapping
        Checked.
    """
    trained = [paths.TRAINED.format(model=model) for model in models_with(config, "training")]
    known = set(study_files(config))
    return [path for path in (*trained, *of_variants(config, paths.BUNDLE)) if path not in known]


def verify_study(config: Mapping[str, Any]) -> Integrity:
    """Read every artifact of a study that is there, and hold its bytes against its digest.

    Parameters
    ----------
    config : mapping
        Checked; paths are those in the current folder.
    """
    expected = study_files(config)
    there = [path for path in (*expected, *files_on_request(config)) if os.path.lexists(path)]
    found = Integrity([], [path for path in expected if path not in set(there)], {})
    with progress("verifying", len(there), "artifacts") as bar:
        for path in there:
            try:
                _check_of(path)(path)
                found.whole.append(path)
            except QuantrustError as error:
                found.damaged[path] = str(error)
            bar.update()
    return found


def _check_of(path: str) -> Callable[[str], None]:
    if Path(path).is_dir():
        return check_folder
    return check_seal if path.endswith(".parquet") else check_document
