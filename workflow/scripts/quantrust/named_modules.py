"""Modules that are found by the name of their file, so that adding one is adding a file.

No import statement names such a module. A rule that runs one therefore carries its digest beside that of the script
(`quantrust.digest.source_digest`), and an edit reruns only the jobs that use the module.
"""

import ast
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from quantrust.digest import SCRIPTS
from quantrust.errors import QuantrustError

ESTIMATORS = "quantrust.confidence.estimators"
FAMILIES = "quantrust.models.families"
DATA_FORMATS = "quantrust.data.formats"
TABLE_FORMATS = "quantrust.data.tables"
METHODS = "quantrust.quantization.methods"
EXPORT_FORMATS = "quantrust.quantization.formats"
READERS = "quantrust.quantization.readers"
FIGURES = "quantrust.report.figures"
TABLES = "quantrust.report.tables"
PUBLISHED_MODELS = "quantrust.planning.published"
TASKS = "quantrust.tasks"


def module_names(package: str) -> list[str]:
    """Return the names of the modules of a package, named with dots, sorted; nothing is imported."""
    folder = SCRIPTS.joinpath(*package.split("."))
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def module_summary(package: str, name: str) -> str:
    """Return the first paragraph of the docstring of a module of a package, as one line; the module is not run."""
    path = SCRIPTS.joinpath(*package.split("."), f"{name}.py")
    docstring = ast.get_docstring(ast.parse(path.read_bytes())) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


def declared(package: str, module: str, name: str, default: Any) -> Any:
    """Return the literal that the source of a module of a package gives a name; the module is not run.

    Parameters
    ----------
    package : str
        Named with dots.
    module : str
        One of `module_names`.
    name : str
        Of the module itself, or of a class in it.
    default : object
        Returned where the source gives it none.
    """
    path = SCRIPTS.joinpath(*package.split("."), f"{module}.py")
    for node in ast.walk(ast.parse(path.read_bytes(), filename=str(path))):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(node, ast.Assign | ast.AnnAssign) and any(
            isinstance(target, ast.Name) and target.id == name for target in targets
        ):
            return default if node.value is None else ast.literal_eval(node.value)
    return default


def export_format_names() -> list[str]:
    """Return the names of the formats that checkpoints are exported in: those of their modules, with hyphens."""
    return [name.replace("_", "-") for name in module_names(EXPORT_FORMATS)]


def load_module(package: str, name: str, required: Sequence[str]) -> ModuleType:
    """Import a module of a package.

    Parameters
    ----------
    package : str
        Named with dots.
    name : str
        One of `module_names`.
    required : sequence of str
        Names that the module must define.

    Raises
    ------
    QuantrustError
        If a required name is missing.
    """
    module = importlib.import_module(f"{package}.{name}")
    for attribute in required:
        if not hasattr(module, attribute):
            raise QuantrustError(f"{module.__file__}: does not define {attribute}; expected {', '.join(required)}")
    return module
