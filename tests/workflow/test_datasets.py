"""Datasets in official files, through config lines alone: the workflow's own jobs on the published layouts."""

import json
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from study_workspace import ROOT, link_workflow

ANSWERS = [{"answer": "red", "answer_confidence": "yes", "answer_id": k + 1} for k in range(10)]
COCO = list(range(9, 1209, 120))
TABLES = [f"data/questions/{name}.parquet" for name in ("vqa", "adversarial", "spoken")]


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)


def write(path: Path, value: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return str(path)


def vqav2_files(folder: Path, images: list[int], each: int) -> dict[str, str]:
    """Write questions and annotations as VQAv2 and AdVQA are published."""
    ids = [(1000 * image + k, image) for image in images for k in range(each)]
    questions = [{"image_id": image, "question": "What color is it?", "question_id": q} for q, image in ids]
    annotations = [{"question_id": q, "image_id": i, "answers": ANSWERS, "answer_type": "other"} for q, i in ids]
    return {
        "questions": write(folder / "questions.json", {"info": {}, "questions": questions}),
        "annotations": write(folder / "annotations.json", {"info": {}, "annotations": annotations}),
        "images": "published/val2014",
    }


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the workflow, three datasets in published layouts, and the overlay that names them."""
    monkeypatch.chdir(tmp_path)
    link_workflow(tmp_path)
    (tmp_path / "resources").symlink_to(ROOT / "resources")
    for image in COCO:
        picture(Path(f"published/val2014/COCO_val2014_{image:012d}.jpg"), image)
    names = [f"VizWiz_val_{k:08d}.jpg" for k in range(4)]
    for k, name in enumerate(names):
        picture(Path("published/vizwiz") / name, k)
    spoken = [{"image": name, "question": "What is this?", "answers": ANSWERS, "answerable": 1} for name in names]
    spoken_files = {"annotations": write(Path("published/val.json"), spoken), "images": "published/vizwiz"}
    overlay = {
        "study": {"id_dataset": "vqa", "shifts": ["adversarial", "spoken"], "schemes": ["bf16"]},
        "datasets": {
            "vqa": {
                "format": "vqav2",
                **vqav2_files(Path("published/vqa"), COCO, 3),
                "split": {"dev": 0.4, "val": 0.1, "test": 0.5, "seed": 0},
            },
            "adversarial": {
                "format": "vqav2",
                "splits": {"test": vqav2_files(Path("published/adversarial"), COCO[:4], 2)},
            },
            "spoken": {"format": "vizwiz", "splits": {"test": spoken_files}},
        },
    }
    Path("study.yaml").write_text(yaml.safe_dump(overlay))
    return tmp_path


def change(*keys: str, value: object) -> None:
    """Change one key of the overlay."""
    overlay = yaml.safe_load(Path("study.yaml").read_text())
    section = overlay
    for key in keys[:-1]:
        section = section.setdefault(key, {})
    section[keys[-1]] = value
    Path("study.yaml").write_text(yaml.safe_dump(overlay))


def snakemake(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snakemake", "--configfile", "study.yaml", "--cores", "2", *arguments]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(*targets: str) -> str:
    done = snakemake("--", *targets)
    assert done.returncode == 0, done.stdout
    return done.stdout


def refused(*targets: str) -> str:
    """Run into a fault; return what was printed, and see that nothing was left half-written."""
    done = snakemake("--", *targets)
    assert done.returncode != 0
    for target in targets:
        assert not Path(target).exists()
    return done.stdout


@pytest.mark.usefixtures("workspace")
def test_three_formats_are_read_and_divided_and_counted() -> None:
    run(*TABLES, "reports/tables/data.csv")
    tables = [pl.read_parquet(path) for path in TABLES]
    assert [table["dataset"].unique().to_list() for table in tables] == [["vqa"], ["adversarial"], ["spoken"]]
    assert dict(tables[0].group_by("split").agg(pl.col("image_id").n_unique()).iter_rows()) == {
        "dev": 4,
        "val": 1,
        "test": 5,
    }
    division = pl.read_parquet("data/splits/vqa.parquet")
    assert division.sort("image_id").equals(tables[0].select("image_id", "split").unique().sort("image_id"))
    assert tables[0]["image"][0] == f"published/val2014/COCO_val2014_{int(tables[0]['image_id'][0]):012d}.jpg"
    assert tables[2]["question_id"].to_list() == tables[2]["image_id"].to_list()
    assert not Path("data/splits/spoken.parquet").exists()

    counts = {row[:2]: row[2:] for row in pl.read_csv("reports/tables/data.csv").iter_rows()}
    assert counts["vqa", "test"] == (5, 15, 0, 0, 0)
    seen = set(tables[1]["image"]) & set(tables[0].filter(split="dev")["image"])
    assert counts["adversarial", "test"] == (4, 8, 0, 0, len(seen))
    assert len(seen) > 0
    assert counts["spoken", "test"] == (4, 4, 0, 0, 0)


@pytest.mark.usefixtures("workspace")
def test_letters_that_patterns_are_made_of_are_letters_of_a_path() -> None:
    Path("published").rename("[p]u* ?")
    overlay = json.loads(json.dumps(yaml.safe_load(Path("study.yaml").read_text())).replace("published/", "[p]u* ?/"))
    split = {"dev": COCO[:3], "val": COCO[3:5], "test": COCO[5:]}
    rows = [(str(image), name) for name, images in split.items() for image in images]
    pl.DataFrame(rows, schema=["image_id", "split"], orient="row").write_csv("[p]u* ?/splits.csv")
    del overlay["datasets"]["vqa"]["split"]
    overlay["datasets"]["vqa"]["split_file"] = "[p]u* ?/splits.csv"
    Path("study.yaml").write_text(yaml.safe_dump(overlay))
    run(*TABLES)
    assert [len(pl.read_parquet(path)) for path in TABLES] == [30, 8, 4]


@pytest.mark.usefixtures("workspace")
def test_another_dataset_or_seed_touches_no_artifact_of_the_others() -> None:
    run(*TABLES)
    change("datasets", "vqa", "split", "seed", value=1)
    shutil.copytree("published/adversarial", "published/more")
    files = {key: f"published/more/{key}.json" for key in ("questions", "annotations")}
    files["images"] = "published/val2014"
    change("datasets", "more", value={"format": "vqav2", "splits": {"test": files}})
    change("study", "shifts", value=["adversarial", "spoken", "more"])
    before = {path: Path(path).stat().st_mtime_ns for path in TABLES}
    run(*TABLES, "data/questions/more.parquet")
    assert [path for path in TABLES if Path(path).stat().st_mtime_ns != before[path]] == [TABLES[0]]


@pytest.mark.usefixtures("workspace")
def test_a_published_split_file_takes_the_place_of_the_seed() -> None:
    split = {"dev": COCO[:3], "val": COCO[3:5], "test": COCO[5:]}
    overlay = yaml.safe_load(Path("study.yaml").read_text())
    del overlay["datasets"]["vqa"]["split"]
    overlay["datasets"]["vqa"]["split_file"] = write(Path("published/splits.json"), split)
    Path("study.yaml").write_text(yaml.safe_dump(overlay))
    run(TABLES[0])
    table = pl.read_parquet(TABLES[0])
    assert {s: sorted(map(int, table.filter(split=s)["image_id"].unique())) for s in split} == split

    split["test"] = [*split["test"], COCO[0]]
    write(Path("published/splits.json"), split)
    Path(TABLES[0]).unlink()
    printed = refused(TABLES[0])
    assert f"error: published/splits.json: image {COCO[0]}: is in the splits dev and test; expected one" in printed


@pytest.mark.usefixtures("workspace")
def test_an_image_too_thin_for_a_model_of_the_study_stops_it_before_any_model_runs() -> None:
    Image.new("RGB", (1, 300)).save("published/vizwiz/VizWiz_val_00000001.jpg")
    printed = refused(TABLES[2])
    assert "VizWiz_val_00000001.jpg): too thin: 1 x 300 pixels, and the models read images whose longer side" in printed
    change("study", "models", value=["idefics3-tiny"])
    run(TABLES[2])
    assert len(pl.read_parquet(TABLES[2])) == 4


@pytest.mark.usefixtures("workspace")
def test_an_image_that_cannot_be_used_stops_the_run_or_is_skipped_and_counted() -> None:
    broken = Path("published/vizwiz/VizWiz_val_00000001.jpg")
    broken.write_bytes(broken.read_bytes()[:300])
    printed = refused(TABLES[2])
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: spoken: 1 image cannot be used: {broken} (question {broken.name}): ")
    assert "on_bad_image: skip" in line

    change("on_bad_image", value="skip")
    run(*TABLES, "reports/tables/data.csv")
    assert pl.read_parquet("data/skipped/spoken.parquet")["question_id"].to_list() == [broken.name]
    counts = {row[:2]: row[2:] for row in pl.read_csv("reports/tables/data.csv").iter_rows()}
    assert counts["spoken", "test"] == (3, 3, 1, 1, 0)
    assert counts["adversarial", "test"][2:4] == (0, 0)


@pytest.mark.usefixtures("workspace")
def test_annotations_of_another_release_stop_the_run() -> None:
    path = Path("published/adversarial/annotations.json")
    value = json.loads(path.read_text())
    value["annotations"][2]["question_id"] = 77
    write(path, value)
    assert "annotations.json: question 129000: has no annotation" in refused(TABLES[1])


@pytest.mark.usefixtures("workspace")
def test_calibration_is_drawn_from_the_configured_pairs_and_never_from_what_is_asked_about() -> None:
    """A picture of val2014 that returns in train2017, one that does not, and one of another collection."""
    shown = [f"coco/train2017/{COCO[0]:012d}.jpg", f"coco/train2017/{500_000:012d}.jpg", "sam/1.jpg"]
    records = []
    for k, image in enumerate(shown):
        picture(Path("captioned") / image, k)
        turns = [("human", "<image>\nWhat is there?"), ("gpt", "a red circle is above the green square")]
        conversations = [{"from": speaker, "value": value} for speaker, value in turns]
        records.append({"id": str(k), "image": image, "conversations": conversations})
    source = {"captions": write(Path("captions.json"), records), "images": "captioned", "only": "coco/train2017/"}
    change("calibration", value={"samples": 1, "source": source})
    change("study", "schemes", value=["bf16", "mbq-w4g64"])
    target = "data/calibration/qwen2-vl-tiny.parquet"
    run(target)
    assert pl.read_parquet(target)["image"].to_list() == [f"captioned/{shown[1]}"]

    change("calibration", "samples", value=2)
    printed = snakemake("--", target)
    assert printed.returncode != 0
    assert "captions.json holds 3 records, 2 were asked for and 1 may be drawn" in printed.stdout


@pytest.fixture
def server(workspace: Path):
    """Serve the published files of one dataset on this machine, and take them away from where the config names them."""
    (workspace / "served").mkdir()
    shutil.move("published/val.json", "served/val.json")
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=workspace / "served"))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{http.server_port}/val.json"
    change("downloads", value={"spoken-list": {"url": url, "folder": "published"}})
    change("datasets", "spoken", "downloads", value=["spoken-list"])
    yield http
    http.shutdown()
    http.server_close()


def test_a_study_says_what_it_lacks_and_the_download_gets_and_locks_it(server) -> None:
    printed = refused(TABLES[2])
    assert "published/val.json does not exist, but datasets.spoken of the config names it" in printed

    run("download")
    lock = json.loads(Path("config/lock/spoken-list.json").read_text())
    assert lock["files"]["val.json"]["bytes"] == Path("served/val.json").stat().st_size
    record = Path("data/downloads/spoken-list.json").read_bytes()
    assert "rule fetch_download" in run("download")
    assert Path("data/downloads/spoken-list.json").read_bytes() == record
    run(TABLES[2])

    # Another machine, with the recorded lock, after the publisher changed the file without changing its size.
    shutil.rmtree("data")
    Path("published/val.json").unlink()
    text = Path("served/val.json").read_text()
    Path("served/val.json").write_text(text.replace("What is this?", "What is that?"))
    printed = refused("data/downloads/spoken-list.json")
    assert "error: published/val.json: has " in printed
    assert lock == json.loads(Path("config/lock/spoken-list.json").read_text())


def test_without_a_network_the_download_says_so(server) -> None:
    server.shutdown()
    server.server_close()
    printed = refused("data/downloads/spoken-list.json")
    assert "val.json: cannot be reached (Connection refused); check the network, or get the file elsewhere" in printed
    assert not Path("config/lock").exists()
