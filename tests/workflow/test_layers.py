"""The documentation names the folders of the package in the order in which `make lint` lets them import each other."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_documentation_has_the_order_of_imports_that_is_checked() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    order = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    layers = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").partition("## Layers")[2]
    table = layers.partition("Modules beside the folders")[0]
    # The first layer is the program itself, the last what lies beside the folders.
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == order[1:-1]
