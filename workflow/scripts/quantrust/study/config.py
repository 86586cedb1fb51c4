"""The config of a study: laid over the default, checked before any job, and completed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from quantrust.errors import QuantrustError
from quantrust.quantization.factorial import grid_tables
from quantrust.quantization.scheme import EXTERNAL
from quantrust.study.checks import study_faults
from quantrust.study.config_file import read_config_file
from quantrust.study.contents import bundle_choice, declared_for_bundles, estimators_of, groupings_of, judged_risks
from quantrust.study.places import DEFAULT, SCHEMA, here_or_in_project
from quantrust.study.schema import schema_faults

HERE = Path("config.yaml")
"""A config in the working folder: laid over the default, below all overlays."""


def read_study(overlays: Iterable[str | Path]) -> dict[str, Any]:
    """Return the config of a study as `snakemake --configfile` makes it of the same files, in the same folder.

    Parameters
    ----------
    overlays : iterable of str or Path
        Config files, the later over the earlier.

    Raises
    ------
    QuantrustError
        As `read_config_file` does, or if the config is not a study that can be run.
    """
    here = [HERE] if HERE.is_file() and not (DEFAULT.is_file() and HERE.samefile(DEFAULT)) else []
    given: dict[str, Any] = {}
    for path in (*here, *overlays):
        given = merged(given, read_config_file(path))
    return study_config(given)


def study_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole config of a study, given at least what differs from the default.

    Parameters
    ----------
    given : mapping
        As Snakemake has merged it, or a part of a config.

    Raises
    ------
    QuantrustError
        If the config is not a study that can be run.
    """
    if not (DEFAULT.is_file() and SCHEMA.is_file()):
        raise QuantrustError(
            f"{DEFAULT} or {SCHEMA} does not exist: the package was installed without the workflow; install it from a "
            "checkout with `pip install --editable .`"
        )
    config = with_named_externals(merged(read_config_file(DEFAULT), given))
    check_config(config)
    return completed(config)


def check_config(config: Mapping[str, Any], schema_path: str | Path = SCHEMA) -> None:
    """Raise when the config is not a study that can be run.

    Parameters
    ----------
    config : mapping
        The default merged with its overlays.
    schema_path : str or Path
        The JSON schema, in YAML.

    Raises
    ------
    QuantrustError
        With one line for every fault: the key's path, its value and what is allowed there.
    """
    faults = schema_faults(config, schema_path) or list(study_faults(config))
    if faults:
        raise QuantrustError("\n".join(f"config: {fault}" for fault in faults))


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checked config with what it leaves open filled in.

    Estimators that are null become those of `quantrust.study.contents.estimators_of`, risk limits that are null those
    of `judged_risks` there, groupings that are null those of `groupings_of`, and what bundles leave open that of
    `declared_for_bundles` and `bundle_choice`. The schemes of grids join those that have a table. The path of a model's
    folder or chat template that is not here becomes that in the project, if it is there.

    Parameters
    ----------
    config : mapping
        It stays as it is.
    """
    estimators, report = estimators_of(config), config["report"]
    shipping = {"estimators": estimators["shipping"], "risks": judged_risks(config)}
    models = {
        name: model | {key: here_or_in_project(model[key]) for key in ("source", "chat_template") if key in model}
        for name, model in config["models"].items()
    }
    return {
        **config,
        "models": models,
        "schemes": {**config["schemes"], **grid_tables(config)},
        "evaluation": {**config["evaluation"], "groups": groupings_of(config)},
        "certification": {**config["certification"], "estimators": estimators["certification"]},
        "bundles": {**config["bundles"], **declared_for_bundles(config), **bundle_choice(config)},
        "comparison": {**config["comparison"], "estimators": estimators["comparison"]},
        "report": {**report, "shipping": {**report["shipping"], **shipping}},
    }


def with_named_externals(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config in which folders that others quantized stand under `schemes`, and by their names in the study.

    In the place of a name, `study.schemes` may have `external: {path: ..., name: ...}`. What has another form is left
    to the checks.

    Parameters
    ----------
    config : mapping
        Not checked yet; it stays as it is.

    Raises
    ------
    QuantrustError
        If `schemes` has something else under the name of such a folder.
    """
    study, schemes = config.get("study"), config.get("schemes")
    if not isinstance(study, Mapping) or not isinstance(schemes, Mapping):
        return dict(config)
    if not isinstance(listed := study.get("schemes"), list):
        return dict(config)
    names, tables = [], dict(schemes)
    for number, entry in enumerate(listed):
        match entry:
            case {"external": {"path": str(path), "name": str(name), **other}, **beside} if not other and not beside:
                if tables.setdefault(name, {EXTERNAL: path}) != {EXTERNAL: path}:
                    raise QuantrustError(
                        f"config: study.schemes[{number}].external.name is {name!r}, a name under schemes; allowed: "
                        "another name"
                    )
                names.append(name)
            case _:
                names.append(entry)
    return {**config, "schemes": tables, "study": {**study, "schemes": names}}


def merged(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config under an overlay: maps are merged key by key, anything else is replaced."""
    result = dict(base)
    for key, value in overlay.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            result[key] = merged(below, value)
        else:
            result[key] = value
    return result
