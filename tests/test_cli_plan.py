"""`quantrust plan`: sizes that are those of what a study writes, and one clear message for what cannot be planned."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from safetensors.torch import load_file

from foreign import LAYERS, change, gptq_layer, stored, write_folder
from published_layout import FULL_WIDTH, model_config
from quantrust.artifacts.tables import write_table
from quantrust.cli import main
from quantrust.commands import plan
from quantrust.confidence.selector import STATES
from quantrust.confidence.selector_training import SelectorSettings, train_selector
from quantrust.embedded.datasets import write_dataset
from quantrust.models.model_folder import prepare_model
from quantrust.planning import estimates
from quantrust.planning.text import size, size_down
from quantrust.quantization.calibration_samples import build_calibration_table
from quantrust.quantization.external import import_checkpoint
from quantrust.quantization.quantize import quantize_model
from quantrust.report.contents import FIGURES, TABLES

ROOT = Path(__file__).resolve().parents[1]
SCHEMES = ("bf16", "hqq-w4g64", "hqq-w3g64-full", "mbq-w3g64-full", "mbq-w4g32-mixed", "attention-only")
OF_OTHERS = {"external": {"path": "folder", "name": "others"}}
STUDY = {
    "study": {
        "models": ["first", "second"],
        "schemes": ["bf16", "hqq-w4g64", "mbq-w4g32-mixed"],
        "shifts": ["scenes-multimodal"],
    },
    "schemes": {
        "attention-only": {
            "method": "hqq",
            "group": 64,
            "symmetric": False,
            "table": [{"component": "language", "layer_type": "attention", "third": "first", "bits": 5}],
        }
    },
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folders: dict[str, Path]) -> Path:
    """A folder with the default config and an overlay with two small models, as the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").symlink_to(ROOT / "config.yaml")
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    models = {
        name: {"source": str(model_folders[family]), "family": family}
        for name, family in (("first", "qwen2_vl"), ("second", "idefics3"))
    }
    write_overlay("study", {**STUDY, "models": models})
    return tmp_path


def write_overlay(name: str, content: dict) -> None:
    Path(f"{name}.yaml").write_text(yaml.safe_dump(content))


def planned(*options: object, overlay: str = "study", code: int = 0) -> list[dict]:
    """Return the rows of a plan; its details are printed."""
    assert main(["plan", "--details", "--config", f"{overlay}.yaml", "--out", "plan.json", *map(str, options)]) == code
    return json.loads(Path("plan.json").read_text())["rows"]


def of(rows: list[dict], rule: str, **where: str) -> list[dict]:
    return [row for row in rows if row["rule"] == rule and all(row[key] == value for key, value in where.items())]


def test_a_model_whose_config_asks_for_another_attention_is_planned(project, model_folders, tmp_path):
    folder = shutil.copytree(model_folders["qwen2_vl"], tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config |= {"_attn_implementation": "flash_attention_2", "quantization_config": {"quant_method": "gptq", "bits": 4}}
    (folder / "config.json").write_text(json.dumps(config))
    overlay = yaml.safe_load(Path("study.yaml").read_text())
    overlay["models"]["first"]["source"] = str(folder)
    write_overlay("flash", overlay)
    other, plain = (of(planned(overlay=name), "quantize_model", model="first") for name in ("flash", "study"))
    # the config.json itself is longer
    longer = (folder / "config.json").stat().st_size - (model_folders["qwen2_vl"] / "config.json").stat().st_size
    assert [{**row, "disk": row["disk"] - longer} for row in other] == plain


def test_weights_files_are_planned_to_the_byte(project: Path, model_folders: dict[str, Path]) -> None:
    overlay = yaml.safe_load(Path("study.yaml").read_text())
    overlay["study"]["schemes"] = list(SCHEMES)
    write_overlay("all", overlay)
    rows = planned(overlay="all")
    settings = {"images": {"dev": 1, "val": 1, "test": 1}, "questions_per_image": 1, "captions": 3, "seed": 0}
    write_dataset("scenes", "scenes", settings)
    for name, folder in (("first", model_folders["qwen2_vl"]), ("second", model_folders["idefics3"])):
        table = build_calibration_table(folder, "scenes/captions.json", "scenes/images", samples=3, seed=0)
        for scheme in SCHEMES[:-1]:
            quantize_model(folder, scheme, table, "checkpoint")
            (row,) = of(rows, "quantize_model", model=name, scheme=scheme)
            assert row["weights_file_exact"] == Path("checkpoint/model.safetensors").stat().st_size
            written = sum(path.stat().st_size for path in Path("checkpoint").iterdir())
            assert written <= row["disk"] < written + 150_000
    # two schemes are of one grid
    assert len({row["weights_file_exact"] for row in of(rows, "quantize_model", model="first")}) == len(SCHEMES) - 1


def test_every_job_is_a_row_of_the_table_and_of_the_files(project: Path, capsys: pytest.CaptureFixture) -> None:
    rows = planned()
    shown = capsys.readouterr().out.splitlines()
    assert max(map(len, shown)) <= 120
    assert "first" in shown and "second" in shown
    (line,) = [line for line in shown if line.startswith("  dump_features mbq-w4g32-mixed scenes-multimodal")][:1]
    (row,) = of(rows, "dump_features", model="first", scheme="mbq-w4g32-mixed", dataset="scenes-multimodal")
    assert line.split()[3] == f"{row['questions']:,}" == "2,100"
    (row,) = of(rows, "quantize_model", model="first", scheme="bf16")
    assert any(f"{row['weights_file_exact']:,} B" in line for line in shown)
    assert main(["plan", "--config", "study.yaml", "--out", "plan.csv"]) == 0
    with open("plan.csv") as file:
        table = list(csv.DictReader(file))
    assert [line["output"] for line in table] == [row["output"] for row in rows]
    assert [int(line["disk"]) for line in table] == [row["disk"] for row in rows]
    # 2 models under 3 schemes, on 2 datasets
    assert [len(of(rows, rule)) for rule in ("quantize_model", "dump_features", "write_scores")] == [6, 12, 6]
    for row in rows:
        assert row["host"] > 0 and row["disk"] > 0 and row["device"] == 0 and row["fits"] is None
    # the many small jobs of the report have a row each, and a line together; twelve others are for learning curves,
    # papers and grids
    tables, figures = (sum(row["rule"] == entry.rule for entry in kind for row in rows) for kind in (TABLES, FIGURES))
    assert tables == len([row for row in rows if row["output"].startswith("reports/tables/")]) == len(TABLES) - 6
    assert figures == len([row for row in rows if row["output"].endswith(".pdf")]) == len(FIGURES) - 6
    # The table of the data has a line of its own.
    together = (f"tables, {tables - 1} jobs", f"figures, {figures} jobs")
    for label in (*together, "build_page", "tabulate_data", "pick_examples"):
        assert sum(line.startswith(f"  {label} ") for line in shown) == 1
    assert not [line for line in shown if "risk_coverage" in line or "tabulate_accuracy" in line]
    (page,), (examples,) = of(rows, "build_page"), of(rows, "pick_examples")
    assert page["questions"] is None and examples["questions"] == 4500 + 2100


def test_the_report_grows_with_its_variants_and_with_what_it_shows(project: Path) -> None:
    rows = planned()
    overlay = yaml.safe_load(Path("study.yaml").read_text())
    overlay["study"]["schemes"].append("hqq-w3g64")
    write_overlay("more", overlay)
    overlay["report"] = {"examples": 9, "limits": {"lowest": 0.005, "highest": 0.4, "step": 0.005}}
    write_overlay("most", overlay)
    more, most = planned(overlay="more"), planned(overlay="most")
    for name in ("risk_coverage", "tabulate_accuracy", "tabulate_selector", "build_page", "pick_examples"):
        (few,), (many,), (all_of_them,) = (of(found, name) for found in (rows, more, most))
        assert few["disk"] < many["disk"]
        assert (many["disk"] < all_of_them["disk"]) == (name in ("build_page", "pick_examples"))
    assert of(most, "tabulate_decisions")[0]["disk"] > 1.9 * of(more, "tabulate_decisions")[0]["disk"]


def test_a_trained_selector_takes_nearly_what_is_planned(project: Path) -> None:
    overlay = yaml.safe_load(Path("study.yaml").read_text())
    overlay["selector"] = {"epochs": 10, "patience": 10, "members": 2}
    write_overlay("selector", overlay)
    section = yaml.safe_load(Path("config.yaml").read_text())["selector"] | overlay["selector"]
    section.pop("learning_curve")
    settings = SelectorSettings(**section)
    (row,) = of(planned(overlay="selector"), "train_selector", model="first", scheme="bf16")
    folder = Path(overlay["models"]["first"]["source"])
    hidden = json.loads((folder / "config.json").read_text())["text_config"]["hidden_size"]
    rng = np.random.default_rng(0)
    states = {name: rng.normal(size=(200, hidden)).astype(np.float16) for name in STATES}
    features = {
        "split": ["dev", "val"] * 100,
        "image_id": [str(row) for row in range(200)],
        "joint_log_prob": -rng.random(200),
        "quality": rng.random(200),
        **states,
    }
    arrays = {name: pl.Array(pl.Float32, hidden) for name in STATES}
    write_table(pl.DataFrame(features, schema_overrides=arrays), "features.parquet")
    train_selector("features.parquet", "selector", settings)
    # the networks of `members`, and as many of selector-residual
    written = sum(path.stat().st_size for path in Path("selector").iterdir())
    assert written <= row["disk"] < 1.2 * written


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("lacking", [0, 1])
def test_what_the_study_needs_is_held_against_the_disk(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, known: bool, lacking: int
) -> None:
    if not known:
        overlay = yaml.safe_load(Path("study.yaml").read_text())
        overlay["models"]["second"]["source"] = "away"
        write_overlay("study", overlay)
    code = 0 if known else 2
    rows = planned(code=code)
    disk, scratch = ([row[key] for row in rows if row[key] is not None] for key in ("disk", "scratch"))
    needed, least = sum(disk) + max(scratch), "" if known else "at least "
    usage, asked = shutil.disk_usage(project)._replace(free=needed - lacking), []
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda path: asked.append(path) or usage)
    capsys.readouterr()
    planned(code=code)
    lines = capsys.readouterr().out.splitlines()
    place = lines.index(
        f"disk: needs {least}{size(needed)} (artifacts, and the largest scratch), "
        f"{size_down(needed - lacking)} free here"
    )
    warning = f"warning: the study does not fit on this disk: {least}1 B too little; make room"
    assert lines[place + 1].startswith(warning) == bool(lacking)
    # data/ may be a link to another disk
    Path("data").mkdir()
    planned(code=code)
    assert asked == [Path(), Path("data")]


def test_the_default_study_is_planned_from_what_is_shipped(project: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["plan", "--details"]) == 0
    shown = capsys.readouterr().out
    # the model that only answers candidates is there as well
    assert "dump_features bf16 scenes-language-candidates" in shown
    assert "?" not in shown


def test_a_model_without_its_config_is_named_and_the_rest_is_planned(
    project: Path, capsys: pytest.CaptureFixture
) -> None:
    hub = {"repository": "some/model", "revision": "abc", "kind": "model"}
    overlay = yaml.safe_load(Path("study.yaml").read_text())
    overlay["models"]["second"] = {"source": "away/model", "family": "idefics3", "downloads": ["second"]}
    overlay["downloads"] = {"second": {"hub": hub, "folder": "away/model"}}
    write_overlay("away", overlay)
    rows = planned(overlay="away", code=2)
    output = capsys.readouterr()
    (message,) = output.err.splitlines()
    assert message.startswith("error: models.second: away/model/config.json does not exist, so that second cannot be")
    assert message.endswith("hf download some/model --revision abc --exclude '*.safetensors' --local-dir away/model")
    (known,) = of(rows, "quantize_model", model="first", scheme="hqq-w4g64")
    (unknown,) = of(rows, "quantize_model", model="second", scheme="hqq-w4g64")
    assert known["weights_file_exact"] > 0
    assert unknown["weights_file_exact"] is unknown["disk"] is unknown["host"] is None
    (dump,) = of(rows, "dump_features", model="second", scheme="bf16", dataset="scenes")
    assert (dump["questions"], dump["disk"]) == (10680, None)
    # a sum of which a part is not known, and a peak that a job on a GPU may have
    (line,) = (line for line in output.out.splitlines() if line.startswith("sum of answers"))
    total = line.split("the others")[1].split()
    assert total[0] == "76,680"
    assert total[1].startswith(">") and "-" in total


def test_a_config_alone_gives_sizes_and_the_message_says_what_memory_needs(
    project: Path, model_folders: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    Path("bare").mkdir()
    shutil.copy(model_folders["qwen2_vl"] / "config.json", "bare")
    overlay = yaml.safe_load(Path("study.yaml").read_text())
    overlay["models"]["first"]["source"] = "bare"
    write_overlay("bare", overlay)
    rows, whole = planned(overlay="bare", code=2), planned()
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("error: models.first: memory cannot be planned: bare/tokenizer.json is missing")
    for bare, full in zip(rows, whole, strict=True):
        assert bare["weights_file_exact"] == full["weights_file_exact"]
        reads_pictures = bare["rule"] in ("build_calibration", "dump_features") or (
            bare["rule"] == "quantize_model" and bare["scheme"].startswith("mbq")
        )
        assert (bare["host"] is None) == (bare["model"] == "first" and reads_pictures)


def test_a_checkpoint_of_others_is_planned_as_it_is_imported(
    project: Path, model_folders: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    """Also before the weights of its base model are there, though the vision tower is taken from them."""
    base = model_folders["qwen2_vl"]
    tensors = load_file(base / "model.safetensors")
    layers = {name: gptq_layer(tensors[f"{stored(name)}.weight"], 4, 32, seed=1)[0] for name in LAYERS}
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True}
    folder = write_folder(base, Path("folder"), settings, layers)
    change(folder, **{key.replace(".", "__"): None for key in tensors if key.startswith("visual.")})
    shutil.copytree(base, "bare", ignore=lambda _, names: [name for name in names if name.endswith(".safetensors")])
    overlay = yaml.safe_load(Path("study.yaml").read_text())
    overlay["models"]["first"]["source"] = "bare"
    overlay["study"] |= {"models": ["first"], "schemes": ["bf16", "hqq-w4g64", OF_OTHERS]}
    write_overlay("others", overlay)
    rows = planned(overlay="others")
    (row,) = of(rows, "import_checkpoint")
    import_checkpoint(base, folder, "others", "checkpoint")
    assert row["weights_file_exact"] == Path("checkpoint/model.safetensors").stat().st_size
    written = sum(path.stat().st_size for path in Path("checkpoint").iterdir())
    assert written <= row["disk"] < written + 150_000 and row["host"] > 0 and row["questions"] is None
    # all that follows is as of any scheme
    following = {
        scheme: [other["rule"] for other in rows if other["scheme"] == scheme][1:] for scheme in ("others", "hqq-w4g64")
    }
    assert following["others"] == following["hqq-w4g64"] and "train_selector" in following["others"]
    assert not [other for other in rows if None in (other["disk"], other["host"])]
    assert f"{row['weights_file_exact']:,} B" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "folder does not exist, but schemes.others.external of the config names it"),
        (
            {"quant_method": "fp8"},
            "folder/config.json: quantization_config says fp8, which is not read; allowed: awq, ",
        ),
        (
            {"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"},
            "folder/config.json: quantization_config (gptq): checkpoint_format 'marlin' is not read; expected gptq",
        ),
    ],
)
def test_a_folder_of_others_that_is_missing_or_not_read_is_not_planned(
    config: dict | None, message: str, project: Path, model_folders: dict[str, Path], capsys: pytest.CaptureFixture
) -> None:
    if config is not None:
        write_folder(model_folders["qwen2_vl"], Path("folder"), config, {})
    overlay = yaml.safe_load(Path("study.yaml").read_text())
    overlay["study"] |= {"models": ["first"], "schemes": ["bf16", OF_OTHERS]}
    write_overlay("others", overlay)
    assert main(["plan", "--config", "others.yaml", "--out", "plan.json"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}") and not Path("plan.json").exists()


def test_a_dataset_without_files_takes_its_size_from_the_config_or_is_named(
    project: Path, capsys: pytest.CaptureFixture
) -> None:
    overlay = yaml.safe_load(Path("study.yaml").read_text())
    overlay["datasets"] = {"away": {"format": "vizwiz", "splits": {"test": {"annotations": "a.json", "images": "b"}}}}
    overlay["study"]["shifts"] = ["away"]
    write_overlay("away", overlay)
    rows = planned(overlay="away", code=2)
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith("error: datasets.away: its files are not there, so that its questions cannot be counted")
    assert {row["questions"] for row in rows if row["dataset"] == "away"} == {None}
    overlay["datasets"]["away"]["size"] = 4319
    write_overlay("away", overlay)
    rows = planned(overlay="away")
    assert {row["questions"] for row in of(rows, "dump_features", dataset="away")} == {4319}


def test_jobs_that_a_gpu_is_too_small_for_are_marked(project: Path, capsys: pytest.CaptureFixture) -> None:
    overlay = yaml.safe_load(Path("study.yaml").read_text()) | {"compute": {"device": "cuda"}}
    write_overlay("gpu", overlay)
    rows = planned("--device-memory", 1000, overlay="gpu")
    dumps = of(rows, "dump_features", model="first", scheme="bf16")
    largest, least = (max(row[key] for row in dumps) for key in ("device", "device_least"))
    assert 0 < least < largest
    assert {row["fits"] for row in rows} == {None}
    capsys.readouterr()
    between = planned("--device-memory", (least + largest) / 2e9, overlay="gpu", code=2)
    assert {row["fits"] for row in of(between, "dump_features", model="first", scheme="bf16")} == {"halved"}
    output = capsys.readouterr()
    assert "of device memory as configured, most of all " in output.err
    assert "lower features.batch_size" in output.err
    assert "halved" in output.out
    none = planned("--device-memory", 1e-9, overlay="gpu", code=2)
    assert {row["fits"] for row in of(none, "dump_features")} == {"no"}
    assert "even with batches of one" in capsys.readouterr().err
    # nothing that runs without a GPU is marked
    assert {row["fits"] for row in none if row["device"] == 0} == {None}


def test_pictures_of_the_configs_processor_are_what_memory_is_planned_for(
    project: Path, model_folders: dict[str, Path]
) -> None:
    overlay = yaml.safe_load(Path("study.yaml").read_text())
    overlay["models"]["first"]["processor"] = {"max_pixels": 4 * 64 * 64, "min_pixels": 4 * 64 * 64}
    write_overlay("larger", overlay)
    (small,), (large,) = (
        of(planned(overlay=name), "dump_features", model="first", scheme="bf16", dataset="scenes")
        for name in ("study", "larger")
    )
    assert large["host"] > small["host"]
    # and the folder that the study would use has these very settings
    prepare_model(model_folders["qwen2_vl"], "prepared", "qwen2_vl", processor={"max_pixels": 16384})
    overlay["models"]["first"] = {"source": "prepared", "family": "qwen2_vl", "processor": {"min_pixels": 16384}}
    write_overlay("prepared", overlay)
    assert of(planned(overlay="prepared"), "dump_features", model="first", dataset="scenes")[0]["host"] == large["host"]


def test_pictures_that_a_dump_keeps_for_other_variants_count_for_it_and_for_no_cell(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = yaml.safe_load(Path("study.yaml").read_text())
    grid = {"methods": ["hqq"], "group": 64, "symmetric": False, "levels": [4, 16]}
    overlay["factorial"] = {"parts": {**grid, "factors": [{"component": "vision"}, {"component": "language"}]}}
    write_overlay("grid", overlay)
    where = {"model": "first", "dataset": "scenes"}
    keeping = planned(overlay="grid")
    monkeypatch.setattr(estimates, "PICTURES_OF_A_DUMP", 0)
    not_keeping = planned(overlay="grid")
    (dump,), (least,) = (of(rows, "dump_features", scheme="bf16", **where) for rows in (keeping, not_keeping))
    assert dump["host"] > least["host"]
    # a cell keeps pictures of its own, under a limit of its own
    cells, others = (of(rows, "answer_cell", **where) for rows in (keeping, not_keeping))
    assert cells and [cell["host"] for cell in cells] == [cell["host"] for cell in others]


def test_host_memory_is_compared_with_this_machine_or_with_what_is_given(
    project: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = planned()
    assert "warning" not in capsys.readouterr().out
    largest = max(row["host"] for row in rows)
    planned("--host-memory", largest / 1e9)
    assert "warning" not in capsys.readouterr().out
    planned("--host-memory", (largest - 1) / 1e9)
    assert "more host memory than --host-memory says, " in capsys.readouterr().out
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 100_000}
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    planned()
    larger = sum(row["host"] > 409_600_000 for row in rows)
    assert f"warning: {larger} jobs may take more host memory than this machine has, 409 MB" in capsys.readouterr().out


ASKED = (("scenes", 8), ("away", 16))


def test_a_line_says_how_a_model_is_asked_that_is_not_embedded(project: Path, capsys: pytest.CaptureFixture) -> None:
    overlay = yaml.safe_load(Path("study.yaml").read_text())
    overlay["models"]["first"]["prompt"] = "{question}\nIn a word."
    files = {"test": {"annotations": "a.json", "images": "b"}}
    overlay["datasets"] = {"away": {"format": "vizwiz", "splits": files, "size": 9, "max_new_tokens": 16}}
    overlay["study"] |= {"models": ["first", "second", "idefics3-tiny"], "schemes": ["bf16"], "shifts": ["away"]}
    write_overlay("asked", overlay)
    planned(overlay="asked")
    said = capsys.readouterr().out.partition("first is asked ")[2].splitlines()
    own, bare = (
        r'"{question}\nIn a word."',
        '"{question}", which is the question alone; models.NAME.prompt gives another',
    )
    about = ["  about {}; an answer ends after {} tokens (features.max_new_tokens)".format(*two) for two in ASKED]
    assert said == [
        own,
        about[0],
        f"first is asked {own}",
        about[1],
        *(line for part in about for line in (f"second is asked {bare}", part)),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such file; expected a config"),
        (["--out", "plan.txt"], "plan.txt: expected --out with a name that ends in .csv or .json"),
        (["--config", "study.yaml", "--out", "study.json/plan.json"], "cannot be written"),
        (["--device-memory", "24"], "compute.device of the config is cpu: no job uses a GPU"),
    ],
)
def test_bad_input_is_one_message(
    project: Path, capsys: pytest.CaptureFixture, options: list[str], message: str
) -> None:
    Path("study.json").touch()
    assert main(["plan", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


SCREEN = 30
"""Lines of a terminal that are seen at once."""


def fresh_clone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a folder with the configs of the project and none of its data the current one."""
    monkeypatch.chdir(folder)
    for name in ("config.yaml", "config", "resources"):
        (folder / name).symlink_to(ROOT / name)


def test_the_published_models_are_planned_to_the_byte_before_any_file_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh_clone(tmp_path, monkeypatch)
    write_overlay("few", {"study": {"schemes": ["bf16"], "shifts": []}})
    command = ["plan", "--config", "config/paper.yaml", "few.yaml", "--out", "plan.json"]
    assert main(command) == 0
    plan = json.loads(Path("plan.json").read_text())
    for model, family, blocks, vision_blocks in (
        ("qwen2-vl-7b", "qwen2_vl", 28, 32),
        ("idefics3-8b", "idefics3", 32, 27),
    ):
        published = replace(FULL_WIDTH[family], blocks=blocks, vision_blocks=vision_blocks)
        Path(model).mkdir()
        (Path(model) / "config.json").write_text(json.dumps(model_config(family, published)))
        overlay = {
            "models": {model: {"source": model}},
            "study": {"models": [model], "schemes": ["bf16"], "shifts": []},
        }
        write_overlay("own", overlay)
        # the shapes of the layout in which it is published, without what pictures need
        assert main(["plan", "--config", "config/paper.yaml", "own.yaml", "--out", "own.json"]) == 2
        rows = json.loads(Path("own.json").read_text())["rows"]
        (planned_size,), (size_of_layout,) = (
            [row["weights_file_exact"] for row in of(found, "quantize_model", model=model, scheme="bf16")]
            for found in (plan["rows"], rows)
        )
        assert planned_size == size_of_layout
        # the index of Qwen2-VL's weights states the bytes of its tensors; a safetensors file has a header as well
        if model == "qwen2-vl-7b":
            assert 0 < planned_size - 16_582_751_232 < 200_000
    assert plan["downloads"]["qwen2-vl-7b-instruct"] > 16_582_751_232
    assert all(row[key] is not None for row in plan["rows"] for key in ("disk", "scratch", "device", "host"))


def test_the_published_component_study_is_planned_before_any_file_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh_clone(tmp_path, monkeypatch)
    few = [{"component": "vision"}, {"component": "language"}]
    grid = {"methods": ["gptq"], "levels": [4, 16], "factors": few}
    write_overlay("few", {"study": {"schemes": ["bf16"]}, "factorial": {"parts": grid}})
    assert main(["plan", "--config", "config/mmq.yaml", "few.yaml", "--out", "plan.json"]) == 0
    plan = json.loads(Path("plan.json").read_text())
    for model, download, weights in (
        ("blip2-opt-2.7b", "blip2-opt-2.7b", 3_744_761_856),
        ("llava-1.5-7b", "llava-1.5-7b-hf", 7_063_427_072),
    ):
        (unquantized,) = of(plan["rows"], "quantize_model", model=model, scheme="bf16")
        # of 16 bits each, but for the Q-Former, which stays in 32, and LLaVA's last vision block, which never runs
        assert 0.99 < unquantized["weights_file_exact"] / (2 * weights) < 1.06
        cells = {f"gptq-g128-{parts}" for parts in ("vision4-language4", "vision4", "language4")}
        assert {row["scheme"] for row in plan["rows"] if row["model"] == model} >= cells
        assert plan["downloads"][download] > 2 * weights
    assert all(row[key] is not None for row in plan["rows"] for key in ("disk", "scratch", "device", "host"))


def test_published_retrieval_is_planned_though_only_the_size_of_its_two_splits_together_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh_clone(tmp_path, monkeypatch)
    write_overlay(
        "few", {"study": {"schemes": ["bf16"]}, "factorial": {"parts": {"methods": ["gptq"], "levels": [4, 16]}}}
    )
    configs = ["config/mmq.yaml", "config/mmq_retrieval.yaml", "few.yaml"]
    assert main(["plan", "--config", *configs, "--out", "plan.json"]) == 0
    rows = json.loads(Path("plan.json").read_text())["rows"]
    (unquantized,) = of(rows, "quantize_model", scheme="bf16")
    # the published file has 4,690,593,960 bytes, all in 32 bits; here the Q-Former alone has as many
    assert 0.5 < unquantized["weights_file_exact"] / 4_690_593_960 < 0.6
    (scored,) = of(rows, "evaluate_in_distribution")
    assert scored["questions"] is None
    (matched,) = of(rows, "dump_matches", scheme="bf16")
    # beside the weights on the GPU, what the pairs of a batch look at
    assert unquantized["weights_file_exact"] < matched["device"] < 4 * unquantized["weights_file_exact"]
    for matched in of(rows, "dump_matches"):
        assert matched["host"] > 0 and matched["device_least"] < matched["device"]


@pytest.mark.slow
def test_the_published_study_is_planned_on_one_screen_of_a_fresh_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    fresh_clone(tmp_path, monkeypatch)
    assert main(["plan", "--config", "config/paper.yaml"]) == 0
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    assert len(lines) <= SCREEN and max(map(len, lines)) <= 140
    assert "?" not in shown and ">" not in shown
    (downloads,) = [line.split() for line in lines if line.startswith("downloads, 11 ")]
    assert downloads[4:6] == ["93.4", "GB"]
    assert any(line.startswith("disk: needs ") and "(downloads, artifacts, and" in line for line in lines)


def test_a_summary_adds_up_what_the_details_have(project: Path, capsys: pytest.CaptureFixture) -> None:
    overlay = yaml.safe_load(Path("study.yaml").read_text()) | {"features": {"shards": 3}}
    write_overlay("shards", overlay)
    rows = planned(overlay="shards")
    # all shards of a dataset's questions are one line of the details
    details = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("  dump_shard ") for line in details) == 12
    assert sum(line.startswith("  dump_shard ") and ", 3 jobs" in line for line in details) == 12
    assert main(["plan", "--config", "shards.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= SCREEN
    (answer,) = [line for line in lines if line.startswith("first: answer, 24 jobs")]
    disk = sum(row["disk"] for rule in ("dump_shard", "gather_features") for row in of(rows, rule, model="first"))
    assert f"{3 * (10680 + 2100):,}" in answer and size(disk) in answer
    (weights,) = [line for line in lines if line.startswith("second: quantize, 3 jobs")]
    exact = sum(row["weights_file_exact"] for row in of(rows, "quantize_model", model="second"))
    assert f"{exact:,} B" in weights
    assert len(rows) == sum(int(found) for line in lines for found in re.findall(r", ([\d,]+) jobs? ", line))


def test_downloads_are_part_of_what_a_study_needs(project: Path, capsys: pytest.CaptureFixture) -> None:
    overlay = yaml.safe_load(Path("study.yaml").read_text())
    overlay["models"]["first"]["downloads"] = ["one", "two"]
    overlay["downloads"] = {
        name: {"url": "https://example.org/a", "folder": name, "bytes": 10**15} for name in ("one", "two")
    }
    write_overlay("downloads", overlay)
    assert main(["plan", "--config", "downloads.yaml"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^downloads, 2 .* 2000 TB ", shown, re.MULTILINE)
    assert "disk: needs 2001 TB (downloads, artifacts, and the largest scratch)" in shown
    del overlay["downloads"]["two"]["bytes"]
    write_overlay("downloads", overlay)
    assert main(["plan", "--config", "downloads.yaml"]) == 0
    assert "disk: needs at least 1001 TB (downloads" in capsys.readouterr().out
