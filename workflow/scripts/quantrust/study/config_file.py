"""Config files as they are read: YAML or JSON, with nothing in it that one does not see when reading it.

Snakemake reads the same files. It lets the last of several equal keys count, and shows a traceback where it cannot read
a file. So each is read here first.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

import yaml

from quantrust.errors import QuantrustError
from quantrust.study.schema import DEEPEST, shown_key

MOST_VALUES = 100_000
"""Values in a file, with those counted again that an alias repeats. A text of a few lines can repeat billions."""
_MERGE = "tag:yaml.org,2002:merge"
_NAMES = {type(None): "nothing", list: "a list"}


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Read a config file, as Snakemake does: as JSON if it is JSON, else as YAML.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    QuantrustError
        If the file is missing, not UTF-8, neither YAML nor JSON, or holds no map; if a map has a key twice; or if
        something holds itself, lies in more than `DEEPEST` maps and lists, or is repeated to more than `MOST_VALUES`.
    """
    path = Path(path)
    try:
        text = _text(path)
        try:
            content = json.loads(text, object_pairs_hook=lambda pairs: _json_map(path, pairs))
        except ValueError:
            content = _yaml_content(path, text)
    except FileNotFoundError:
        raise QuantrustError(f"{path}: no such file; expected a config, such as config/paper.yaml") from None
    except UnicodeDecodeError as error:
        raise QuantrustError(f"{path}: is not UTF-8 text at byte {error.start}; save it as UTF-8") from None
    except RecursionError:
        raise QuantrustError(
            f"{path}: cannot be read, because it is nested too deeply; expected at most {DEEPEST} maps and lists in "
            "one another"
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        # a ValueError is a number of more digits than Python reads, or a date that there is not
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise QuantrustError(f"{path}: cannot be read as YAML ({reason}); correct the file") from None
    if not isinstance(content, dict):
        held = _NAMES.get(type(content), type(content).__name__)
        raise QuantrustError(f"{path}: holds {held}; expected a map of config keys")
    return content


def _text(path: Path) -> str:
    kind = os.stat(path).st_mode
    # A device may have no end. A pipe may be what a shell puts in the place of a command's output.
    if stat.S_ISCHR(kind) or stat.S_ISBLK(kind) or stat.S_ISSOCK(kind):
        raise QuantrustError(f"{path}: is a device or a socket; expected a config, such as config/paper.yaml")
    return path.read_text(encoding="utf-8")


def _json_map(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise QuantrustError(f"{path}: has the key {shown_key(twice)} twice in one map; take one out")
    return content


def _yaml_content(path: Path, text: str) -> Any:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _Measure(path).of(node, ())
        return loader.construct_document(node)
    finally:
        loader.dispose()


class _Measure:
    """Looks at what a YAML file describes before it is made: an alias is a part that stands in several places.

    Parameters
    ----------
    path : Path
        The file, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[int, tuple[int, int]] = {}

    def of(self, node: yaml.Node, above: tuple[int, ...]) -> tuple[int, int]:
        """Return how many values a part has, itself and repeated ones included, and how many levels."""
        line = f"{self.path}: line {node.start_mark.line + 1}"
        if id(node) in above:
            raise QuantrustError(f"{line}: an alias in this part stands for the part itself; write out what is meant")
        if id(node) not in self.known:
            self.known[id(node)] = self._counted(node, above)
        values, levels = self.known[id(node)]
        if levels + len(above) > DEEPEST + 1:
            raise QuantrustError(
                f"{line}: is nested too deeply; expected at most {DEEPEST} maps and lists in one another"
            )
        if values > MOST_VALUES:
            raise QuantrustError(
                f"{line}: has more than {MOST_VALUES:,} values, with those that aliases repeat; expected fewer"
            )
        return values, levels

    def _counted(self, node: yaml.Node, above: tuple[int, ...]) -> tuple[int, int]:
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
            parts = [part for pair in node.value for part in pair]
        else:
            parts = node.value if isinstance(node, yaml.SequenceNode) else []
        counted = [self.of(part, (*above, id(node))) for part in parts]
        return 1 + sum(values for values, _ in counted), 1 + max((levels for _, levels in counted), default=0)

    def _check_keys(self, node: yaml.MappingNode) -> None:
        first: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            # what is merged into a map gives way to the map's own keys, on purpose
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            line = key.start_mark.line + 1
            if (name := (key.tag, key.value)) in first:
                raise QuantrustError(
                    f"{self.path}: line {line} gives {shown_key(key.value)} again, after line {first[name]}; take one "
                    "of them out"
                )
            first[name] = line
