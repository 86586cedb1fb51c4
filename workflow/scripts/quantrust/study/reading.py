"""The config of a study as Snakemake would merge it, without Snakemake."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from quantrust.digest import SCRIPTS
from quantrust.errors import QuantrustError
from quantrust.study.config import check_config, completed

DEFAULT = Path("config.yaml")
SCHEMA = SCRIPTS.parent / "schemas" / "config.schema.yaml"


def read_study(overlays: Iterable[str | Path], default: str | Path = DEFAULT) -> dict[str, Any]:
    """Return the checked config of a study, with what it leaves open filled in.

    Parameters
    ----------
    overlays : iterable of str or Path
        Config files, the later over the earlier, as `snakemake --configfile` takes them.
    default : str or Path
        What they are laid over; the Snakefile's own, in the current folder.

    Raises
    ------
    QuantrustError
        If a file is missing or no YAML map, or the config is not a study that can be run.
    """
    if not Path(default).is_file():
        raise QuantrustError(
            f"{default} does not exist here; go to the folder of the project, where its Snakefile and config.yaml lie"
        )
    if not SCHEMA.is_file():
        raise QuantrustError(
            f"{SCHEMA} does not exist: the package was installed without the workflow; install it from a checkout "
            "with `pip install --editable .`"
        )
    config: dict[str, Any] = {}
    for path in (default, *overlays):
        config = merged(config, _read_map(Path(path)))
    check_config(config, SCHEMA)
    return completed(config)


def merged(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config under an overlay: maps are merged key by key, anything else is replaced."""
    result = dict(base)
    for key, value in overlay.items():
        below = result.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        result[key] = merged(below, value) if both else value
    return result


def _read_map(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise QuantrustError(f"{path}: no such file; expected a config, such as config/paper.yaml") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        # a ValueError is text that is no UTF-8, or a number of more digits than Python reads
        raise QuantrustError(f"{path}: can not be read as YAML ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise QuantrustError(f"{path}: holds {type(content).__name__}; expected a map of config keys")
    return content
