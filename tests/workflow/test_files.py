"""The workflow's files: rules complete, scripts thin, environments and requirements in step."""

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

from quantrust.digest import SCRIPTS, code_files
from quantrust.report.contents import ENTRIES, Figure, Table

ROOT = Path(__file__).resolve().parents[2]
RULES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
SCRIPT_FILES = sorted(SCRIPTS.glob("*.py"))
PACKAGE = sorted((SCRIPTS / "quantrust").rglob("*.py"))
# Rules whose jobs run a model where compute.device says.
ON_A_DEVICE = {"quantize_model", "dump_features", "dump_matches", "dump_shard", "answer_cell"}
HEAVY = {
    "write_dataset",
    "break_down_variant",
    "train_model",
    "quantize_model",
    "dump_features",
    "dump_matches",
    "dump_shard",
    "answer_cell",
    "train_selector",
    "train_on_labels",
    "evaluate_learning",
    "evaluate_variant",
    "evaluate_in_distribution",
    "break_down_in_distribution",
} | {
    "certify_variant",
    "set_operating_points",
    "resample_variant",
    "measure_drift",
    "judge_groups",
    "weigh_components",
}
# Used where they are installed; nothing requires them.
OPTIONAL = {"gemlite"}
# What a package is called where it is imported, installed and found in a conda channel.
INSTALLED_AS = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml", "vl_convert": "vl-convert-python"}
IN_CONDA = {"matplotlib": "matplotlib-base"}


def rules() -> dict[str, str]:
    """Text of every rule by its name, and of those that a loop makes by the name of their script."""
    found = {}
    for path in RULES:
        parts = re.split(r"^(?: {4})?rule(?: (\w+))?:\n", path.read_text(), flags=re.MULTILINE)
        found |= {name or script_of(text): text for name, text in zip(parts[1::2], parts[2::2], strict=True)}
    return found


def script_of(text: str) -> str:
    """The script that a rule runs."""
    return re.search(r'script:\s+"\.\./scripts/(\w+)\.py"', text)[1]


def modules_of(rule: str) -> list[Path]:
    """What a rule of a loop runs beside its script: the modules of all figures or tables."""
    kind = {"plot_figure": Figure, "write_table": Table}.get(rule)
    dotted = [entry.dotted_module for entry in ENTRIES if kind is not None and isinstance(entry, kind)]
    return [SCRIPTS.joinpath(*name.split(".")).with_suffix(".py") for name in dotted]


def pins(path: Path) -> dict[str, str]:
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return dict(line.split("==") for line in lines if line and not line.startswith("-r"))


def environment(rule: str) -> dict[str, str]:
    """Pins of the environment that a rule names, by the names of PyPI."""
    name = re.search(r'"\.\./\.\./envs/(\w+)\.yaml"', rules()[rule])[1]
    declared = yaml.safe_load((ROOT / "envs" / f"{name}.yaml").read_text())["dependencies"]
    found = {}
    for entry in declared:
        entries = entry["pip"] if isinstance(entry, dict) else [entry]
        for requirement in entries:
            package, _, version = requirement.partition("==" if isinstance(entry, dict) else "=")
            found[package] = version
    return {{v: k for k, v in IN_CONDA.items()}.get(package, package): version for package, version in found.items()}


def imports(path: Path) -> set[str]:
    """Top-level names that a file imports from outside the standard library and this package."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.split(".")[0])
    return {INSTALLED_AS.get(name, name) for name in names - set(sys.stdlib_module_names) - {"quantrust"} - OPTIONAL}


@pytest.mark.parametrize("rule", rules())
def test_a_rule_has_environment_log_threads_resources_and_its_codes_digest(rule: str) -> None:
    text = rules()[rule]
    code = f'code("{script_of(text)}"),'
    if rule == "quantize_model":
        code = "of(digests.quantization_code),"
    elif rule == "import_checkpoint":
        code = "of(digests.external_code),"
    elif modules_of(rule):
        code = f"[{code} *digests.entry_code(config, "
    for needed in ("conda:", "log:", "mem_mb=memory(", "runtime=", f"code={code}"):
        assert needed in text
    # More threads in a computation would change bytes; workers only prepare pictures.
    assert ("threads: 1 + WORKERS\n" if rule.startswith(("dump_", "answer_")) else "threads: 1\n") in text
    assert ("gpu=GPUS," in text) == (rule in ON_A_DEVICE)
    assert ("benchmark:" in text) == (rule in HEAVY)


def test_every_script_is_run_by_a_rule() -> None:
    run = set(re.findall(r"\.\./scripts/(\w+)\.py", "".join(rules().values())))
    assert run == {path.stem for path in SCRIPT_FILES}


def test_no_script_hides_a_module_of_another_package() -> None:
    """Jobs find the package through PYTHONPATH, and with it the scripts before everything that is installed."""
    installed = packages_distributions().keys() | set(sys.stdlib_module_names)
    assert not installed & {path.stem for path in SCRIPT_FILES}


@pytest.mark.parametrize("path", SCRIPT_FILES, ids=lambda path: path.stem)
def test_a_script_is_thin(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 30
    tree = ast.parse(path.read_text())
    assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.For | ast.While) for node in ast.walk(tree))


def test_files_of_json_are_read_in_one_place() -> None:
    """So that each reader says what is wrong with a file, of which a parser by itself tells little."""
    parsing = {
        path.relative_to(SCRIPTS / "quantrust").as_posix()
        for path in PACKAGE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("json.load", "json.loads")
    }
    assert parsing == {
        "files.py",
        # a table of the package itself, a header that the library has just written, records by which files are judged
        *("tasks/normalisation.py", "tensor_file.py", "artifacts/folder_record.py"),
        # a config, which may be YAML as well, and a request, which is no file
        *("study/config_file.py", "serving/chat.py"),
    }


def test_the_package_never_sees_snakemake() -> None:
    for path in PACKAGE:
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert "snakemake" not in names | imports(path), path


def test_what_the_snakefile_imports_is_light() -> None:
    """So that a run with nothing to do ends at once."""
    rules = [path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk"))]
    # whole statements, because what a package has is imported by some of its modules and not by itself
    statement = r"^(?:from quantrust[\w.]* import (?:\([^)]*\)|.*)|import quantrust.*)$"
    imports = [found for text in rules for found in re.findall(statement, text, flags=re.MULTILINE)]
    assert any("import asked, " in found for found in imports) and any("(\n" in found for found in imports)
    heavy = {"torch", "polars", "numpy", "transformers", "matplotlib", "sklearn", "scipy", "pyarrow"}
    program = "\n".join(["import sys", *imports, f"print(sorted({heavy} & set(sys.modules)))"])
    done = subprocess.run([sys.executable, "-c", program], cwd=SCRIPTS, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("rule", rules())
def test_an_environment_declares_every_import_of_its_stage(rule: str) -> None:
    files = {
        path
        for run in (SCRIPTS / f"{script_of(rules()[rule])}.py", *modules_of(rule))
        for path in code_files(run, SCRIPTS)
        if path.suffix == ".py"
    }
    needed = set().union(*map(imports, files))
    assert needed <= set(environment(rule))


@pytest.mark.parametrize("rule", rules())
def test_an_environment_has_the_pins_of_the_requirements(rule: str) -> None:
    required = pins(ROOT / "requirements.txt")
    for package, version in environment(rule).items():
        if package not in ("python", "pip"):
            assert version == required[package], package


def test_the_requirements_are_what_the_package_imports() -> None:
    serving = {path for path in PACKAGE if (SCRIPTS / "quantrust" / "serving") in path.parents}
    imported = set().union(*(imports(path) for path in PACKAGE if path not in serving))
    required = set(pins(ROOT / "requirements.txt"))
    assert imported <= required
    # No study serves answers: what that takes is an extra, and there for the tests.
    extra = set().union(*map(imports, serving)) - required
    brought = {"starlette": "fastapi", "h11": "uvicorn", "prometheus_client": "prometheus-client"}
    assert {brought.get(name, name) for name in extra} <= set(pins(ROOT / "requirements-dev.txt"))
    # Snakemake runs it all, on a cluster through its executor.
    assert required - imported == {"snakemake", "snakemake-executor-plugin-slurm"}


def test_torch_is_pinned_where_it_is_installed_from() -> None:
    """An unpinned torch, or a build tag that a package index does not know, fetches CUDA or fails."""
    assert "torch==2.13.0\n" in (ROOT / "requirements.txt").read_text()
    assert "      - torch==2.13.0\n" in (ROOT / "envs" / "torch.yaml").read_text()
