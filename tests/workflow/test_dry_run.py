"""Every shipped study plans its jobs, and a faulty config stops before any."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from study_workspace import OVERLAYS, ROOT, link_workflow, overlay_files, record_models

# One of them has thousands of jobs.
NAMES = [
    pytest.param(path.stem, marks=pytest.mark.slow) if path.stem == "mmq_published_levels" else path.stem
    for path in OVERLAYS
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the workflow and with models of which only the records exist."""
    folder = tmp_path_factory.mktemp("workspace")
    link_workflow(folder)
    record_models(folder)
    return folder


def snakemake(workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", *arguments]
    return subprocess.run(command, cwd=workspace, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture
def official_files(workspace: Path, overlaid: dict[str, dict]) -> Iterator[None]:
    """Empty files and folders in the place of all that the shipped studies' datasets, calibration and models name."""
    for config in overlaid.values():
        for model in config["models"].values():
            if "source" in model and not (workspace / model["source"]).exists():
                (workspace / model["source"]).mkdir(parents=True)
                (workspace / model["source"] / "config.json").touch()
        for file, folder in named_files(config):
            (workspace / folder).mkdir(parents=True, exist_ok=True)
            (workspace / file).parent.mkdir(parents=True, exist_ok=True)
            (workspace / file).touch()
    yield
    shutil.rmtree(workspace / "data")


def named_files(config: dict) -> Iterator[tuple[str, str]]:
    """Yield every file that a config names for its datasets and calibration, with the folder of its images."""
    for dataset in config["datasets"].values():
        if dataset["format"] != "embedded":
            for part in dataset.get("splits", {"all": dataset}).values():
                yield from ((part[key], part["images"]) for key in ("questions", "annotations") if key in part)
    source = config["calibration"]["source"]
    if source is not None:
        yield source["captions"], source["images"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("official_files")
def test_a_shipped_study_plans_its_figures_and_downloads_nothing(workspace: Path, name: str) -> None:
    done = snakemake(workspace, "--configfile", *overlay_files(name), "--dry-run", "--cores", "1")
    assert done.returncode == 0, done.stdout
    assert "rule risk_coverage:" in done.stdout
    assert "fetch_download" not in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_downloads_are_a_target_of_their_own(workspace: Path, overlaid: dict[str, dict], name: str) -> None:
    done = snakemake(workspace, "--configfile", *overlay_files(name), "--dry-run", "--cores", "1", "--", "download")
    assert done.returncode == 0, done.stdout
    config, study = overlaid[name], overlaid[name]["study"]
    sections = [config["datasets"][dataset] for dataset in (study["id_dataset"], *study["shifts"])]
    asked = {name for section in [*sections, config["calibration"]] for name in section.get("downloads", [])}
    planned = set(re.findall(r"output: data/downloads/([\w.-]+)\.json", done.stdout))
    assert planned >= asked
    assert set(re.findall(r"^(?:local)?rule (\w+):$", done.stdout, re.MULTILINE)) <= {"fetch_download", "download"}


@pytest.mark.parametrize("name", ["default", "paper"])
@pytest.mark.usefixtures("official_files")
def test_only_a_study_of_published_models_has_the_table_beside_the_papers_figures(workspace: Path, name: str) -> None:
    overlay = () if name == "default" else ("--configfile", f"config/{name}.yaml")
    done = snakemake(workspace, *overlay, "--dry-run", "--cores", "1")
    assert done.returncode == 0, done.stdout
    planned = re.findall(r"^rule tabulate_published:\n(    input: .+)\n    output: (.+)$", done.stdout, re.MULTILINE)
    if name != "paper":
        assert "published.csv" not in done.stdout and not planned
        return
    ((inputs, outputs),) = planned
    assert outputs.split(", ") == [f"reports/paper/tables/published.{kind}" for kind in ("csv", "md", "tex")]
    assert (
        inputs.endswith("config/paper_reference.yaml")
        and "data/in_distribution/metrics/idefics3-8b/bf16.parquet" in inputs
    )


@pytest.mark.usefixtures("official_files")
def test_the_published_study_asks_a_cluster_for_gpus_memory_and_time(workspace: Path) -> None:
    done = snakemake(workspace, "--workflow-profile", "slurm", "--configfile", "config/paper.yaml", "--dry-run")
    assert done.returncode == 0, done.stdout
    jobs = re.findall(r"^rule (\w+):\n(?:    .+\n)*?    resources: (.+)$", done.stdout, re.MULTILINE)
    asked = {
        rule: dict(entry.split("=", 1) for entry in resources.split(", ")) for rule, resources in jobs if rule != "all"
    }
    assert {rule for rule, resources in asked.items() if resources.get("gpu") == "1"} == {
        "quantize_model",
        "dump_shard",
    }
    profile = yaml.safe_load((ROOT / "workflow" / "profiles" / "slurm" / "config.yaml").read_text())
    for rule, resources in asked.items():
        given = profile["set-resources"].get(rule)
        if given:
            assert {key: f"{resources[key]} * attempt" for key in given} == given
        assert int(resources["mem_mb"]) >= 1000
        assert int(resources["runtime"]) >= 5


def test_profiles_agree_on_what_is_out_of_date_and_name_rules_that_there_are() -> None:
    local, slurm = (
        yaml.safe_load((ROOT / "workflow" / "profiles" / name / "config.yaml").read_text())
        for name in ("default", "slurm")
    )
    for key in ("rerun-triggers", "rerun-incomplete"):
        assert local[key] == slurm[key]
    rules = {
        rule
        for path in (ROOT / "workflow" / "rules").glob("*.smk")
        for rule in re.findall(r"^rule (\w+):$", path.read_text(), re.MULTILINE)
    }
    assert slurm["set-resources"].keys() <= rules


def test_a_file_that_is_not_there_is_named_with_what_to_do(workspace: Path) -> None:
    done = snakemake(workspace, "--configfile", "config/paper.yaml", "--cores", "1")
    assert done.returncode != 0
    assert "v2_OpenEnded_mscoco_val2014_questions.json does not exist, but datasets.vqav2 of the config" in done.stdout
    assert "`snakemake download`" in done.stdout
    assert not (workspace / "data").exists()


def test_the_default_study_plans_a_job_for_every_variant(workspace: Path) -> None:
    done = snakemake(workspace, "--dry-run", "--cores", "1")
    assert done.returncode == 0, done.stdout
    # Two models under nine schemes; the unquantized adversary is one checkpoint more, and answers its candidates.
    counts = {rule: done.stdout.count(f"rule {rule}:") for rule in ("quantize_model", "dump_features", "write_scores")}
    assert counts == {"quantize_model": 19, "dump_features": 55, "write_scores": 18}


IN_DISTRIBUTION_ALONE = (
    *("risk_coverage", "degradation", "efficiency", "reliability_diagrams", "confidence_histograms", "question_kinds"),
)


def test_figures_in_distribution_ask_for_no_shift(workspace: Path) -> None:
    figures = [f"reports/quick/{name}.pdf" for name in IN_DISTRIBUTION_ALONE]
    done = snakemake(workspace, "--configfile", "config/quick.yaml", "--dry-run", "--cores", "1", "--", *figures)
    assert done.returncode == 0, done.stdout
    counts = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout.split("Job stats:")[1], re.MULTILINE))
    of_variants = ("quantize_model", "dump_features", "train_selector", "score_in_distribution")
    of_variants += ("evaluate_in_distribution", "break_down_in_distribution")
    once = ("write_dataset", "build_questions", "prepare_model", "tabulate_sizes")
    expected = dict.fromkeys(of_variants, "3") | dict.fromkeys((*once, *IN_DISTRIBUTION_ALONE), "1")
    assert counts == expected | {"total": str(3 * len(of_variants) + len(once) + len(IN_DISTRIBUTION_ALONE))}
    assert "adversary" not in done.stdout and "scenes-" not in done.stdout


def test_shards_take_the_place_of_one_dump_for_a_variant_and_dataset(workspace: Path) -> None:
    (workspace / "shards.yaml").write_text("features: {shards: 3}")
    done = snakemake(workspace, "--configfile", "shards.yaml", "--dry-run", "--cores", "1")
    assert done.returncode == 0, done.stdout
    rules = ("dump_features", "dump_shard", "gather_features", "write_scores")
    counts = {rule: done.stdout.count(f"rule {rule}:") for rule in rules}
    assert counts == {"dump_features": 0, "dump_shard": 3 * 55, "gather_features": 55, "write_scores": 18}


def test_a_study_of_retrieval_finds_answers_and_writes_none(workspace: Path) -> None:
    study = {"models": ["matching"], "schemes": ["bf16", "gptq-w4g64-full"], "id_dataset": "scenes-retrieval"}
    overlay = {
        "study": study | {"shifts": [], "estimators": ["match-margin"]},
        "models": {"matching": {"source": "resources/models/qwen2-vl-tiny", "family": "blip_2_retrieval"}},
    }
    (workspace / "retrieval.yaml").write_text(yaml.safe_dump(overlay))
    done = snakemake(workspace, "--configfile", "retrieval.yaml", "--dry-run", "--cores", "1")
    assert done.returncode == 0, done.stdout
    rules = ("write_dataset", "build_calibration", "dump_matches", "dump_features", "write_scores", "train_selector")
    counts = {rule: done.stdout.count(f"rule {rule}:") for rule in rules}
    assert counts == dict(zip(rules, (1, 1, 2, 0, 2, 0), strict=True))
    # there is nothing to calibrate, and no token to compare
    assert "rule reliability_diagrams:" not in done.stdout and "rule measure_drift:" in done.stdout


FAULTS = {
    "study: {schemes: [mbq-w4]}": "config: study.schemes[0] is 'mbq-w4': scheme 'mbq-w4' does not parse",
    "evaluation: {resample: 10}": "config: unknown key evaluation.resample",
    "study: {models: [llava]}": "config: study.models[0] is 'llava'; allowed: a name under models",
}


@pytest.mark.parametrize(("overlay", "message"), FAULTS.items(), ids=FAULTS)
def test_a_faulty_config_stops_before_any_job(workspace: Path, overlay: str, message: str) -> None:
    (workspace / "faulty.yaml").write_text(overlay)
    done = snakemake(workspace, "--configfile", "faulty.yaml", "--cores", "1")
    assert done.returncode != 0
    assert message in done.stdout
    assert "Traceback" not in done.stdout
    assert not (workspace / "data").exists()


def test_a_model_folder_that_does_not_exist_is_named_before_any_job(workspace: Path) -> None:
    (workspace / "faulty.yaml").write_text("models: {qwen2-vl-tiny: {source: nowhere}}")
    done = snakemake(workspace, "--configfile", "faulty.yaml", "--cores", "1")
    assert done.returncode != 0
    assert "nowhere does not exist, but models.qwen2-vl-tiny.source of the config names it" in done.stdout
    assert not (workspace / "data").exists()
