"""Names that files hold: each reader joins them to their folder, and none reads or writes outside it."""

import hashlib
import io
import json
import shutil
import zipfile
from pathlib import Path

import datasets
import pytest
from PIL import Image

from official_readers import read_vizwiz, read_vqav2
from quantrust.artifacts import folder_record
from quantrust.artifacts.folder_record import RECORD, check_folder, write_record
from quantrust.data.rows import write_official
from quantrust.downloads.archive import unpack
from quantrust.downloads.fetch import fetch
from quantrust.errors import QuantrustError
from quantrust.files import path_inside
from quantrust.models.model_folder import prepare_model
from quantrust.models.weights import weight_files
from quantrust.quantization.calibration_samples import build_calibration_table

ANSWERS = [{"answer": "red"} for _ in range(10)]
LEADS_OUT = [
    "/etc/hostname",
    "../secret",
    "a/../../secret",
    "..",
    "../",
    "..\\secret",
    "a\0b",
    "a\n",
    "",
    ".",
    "a\ud800",
]
SECRET = b"not of this study"


@pytest.mark.parametrize("name", [*LEADS_OUT, "x" * 256, "a/" + "\u00e9" * 128, "x/" * 10**5])
def test_a_name_that_is_no_file_of_the_folder_is_refused_with_the_file_that_holds_it(name, tmp_path):
    with pytest.raises(QuantrustError, match=r"^list\.json: names the file ") as caught:
        path_inside(tmp_path, name, "list.json")
    str(caught.value).encode()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["a", "a/b.jpg", "./a", ".hidden", "..a", "a..", "x" * 255, "\u00e9 [*?]{v1}.png"])
def test_a_name_of_the_folder_is_joined(name, tmp_path):
    assert path_inside(tmp_path, name, "list.json") == tmp_path / name
    assert path_inside("images", name, "list.json") == Path("images") / name


def test_links_may_stay_inside_and_lead_out_only_where_that_is_said(tmp_path):
    folder, elsewhere = tmp_path / "folder", tmp_path / "folder-elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "secret").write_bytes(SECRET)
    (folder / "file").write_bytes(b"")
    (folder / "inside").symlink_to("file")
    (folder / "out").symlink_to(elsewhere / "secret")
    (folder / "nowhere").symlink_to("../nothing")
    (folder / "deep").symlink_to(elsewhere)
    (folder / "loop").symlink_to("loop")
    (tmp_path / "linked").symlink_to(folder)
    assert path_inside(folder, "inside", "x") == folder / "inside"
    assert path_inside(tmp_path / "linked", "inside", "x") == tmp_path / "linked" / "inside"
    assert path_inside(folder, "out", "x", links_out=True) == folder / "out"
    assert path_inside(folder, "loop", "x") == folder / "loop"
    for name in ("out", "nowhere", "deep/secret"):
        with pytest.raises(QuantrustError, match=rf"^x: names the file '{name}', but .* is a link to .*, outside"):
            path_inside(folder, name, "x")
    with pytest.raises(QuantrustError, match="is a link to"):
        path_inside(folder, "deep/secret", "x", links_out=True)


@pytest.fixture
def project(tmp_path):
    """A project folder with a file that no reader may touch; the study's data lie below it."""
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "data").mkdir()
    yield tmp_path
    assert (tmp_path / "secret").read_bytes() == SECRET


# Where the file that no reader may touch lies, seen from a folder two below the project.
UP = "../../secret"


def exploits(project: Path) -> list[str]:
    return [UP, str(project / "secret"), "..\\..\\secret"]


def linked(folder: Path, name: str = "link.png") -> str:
    """Put a link to the file that no reader may touch into a folder, and name it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(Path("../../secret"))
    return name


def test_training_json_neither_reads_nor_writes_outside(project, model_folders):
    """A list with the digest of a file of another folder once replaced the project's Snakefile."""
    source = project / "models" / "trained"
    shutil.copytree(model_folders["idefics3"], source)
    for name in exploits(project):
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in source.iterdir()}
        digests.pop("training.json", None)
        digests[name] = hashlib.sha256(SECRET).hexdigest()
        (source / "training.json").write_text(json.dumps({"files": digests}))
        with pytest.raises(QuantrustError, match=r"models/trained/training\.json: names the file "):
            prepare_model(source, project / "data" / "models", "idefics3")
        assert not (project / "data" / "models").exists()
    (source / "training.json").write_text(json.dumps({"files": list(digests)}))
    with pytest.raises(QuantrustError, match=r'training\.json: expected "files", an object'):
        prepare_model(source, project / "data" / "models", "idefics3")


def test_files_of_training_json_may_be_links_of_the_hub_s_cache(project, model_folders):
    source = project / "snapshots" / "trained"
    source.mkdir(parents=True)
    digests = {}
    for path in model_folders["idefics3"].iterdir():
        blob = project / f"blob-{path.name}"
        shutil.copyfile(path, blob)
        (source / path.name).symlink_to(blob)
        digests[path.name] = hashlib.sha256(blob.read_bytes()).hexdigest()
    (source / "training.json").write_text(json.dumps({"files": digests}))
    prepare_model(source, project / "data" / "models", "idefics3")
    assert {path.name for path in (project / "data" / "models").iterdir()} == {*digests, RECORD}


@pytest.mark.parametrize("name", [UP, "..", "..\\secret", "", "a\0"])
def test_an_index_of_weights_names_files_beside_it(name, project):
    (project / "data" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"head.weight": name}}))
    with pytest.raises(QuantrustError, match=r"model\.safetensors\.index\.json"):
        weight_files(project / "data")


def test_a_record_of_an_artifact_names_files_in_it(project):
    """No other file is looked at: what a record names must be among the files of the folder."""
    for name in exploits(project):
        write_record(project / "data")
        listed = json.loads((project / "data" / RECORD).read_text())["files"]
        # whoever writes a record writes its digest too
        (project / "data" / RECORD).write_text(folder_record._text(listed | {name: {"bytes": 0, "sha256": "0" * 64}}))
        with pytest.raises(QuantrustError, match=r"data lacks .*, which its quantrust-digests\.json lists"):
            check_folder(project / "data")


@pytest.mark.parametrize("kind", ["name", "link"])
def test_a_lock_names_files_of_its_download(kind, project):
    hub = {"repository": "owner/data", "revision": "main", "kind": "dataset"}
    folder = project / "data" / "got"
    content = {"bytes": len(SECRET), "sha256": hashlib.sha256(SECRET).hexdigest()}
    for name in exploits(project) if kind == "name" else [linked(folder)]:
        lock = {"source": hub, "commit": "a" * 40, "files": {name: content}}
        (project / "x.lock").write_text(json.dumps(lock))
        with pytest.raises(QuantrustError, match=r"x\.lock: names the file "):
            fetch("x", {"hub": hub, "folder": str(folder)}, project / "x.lock", project / "x.json")
        assert not (project / "x.json").exists()


def test_an_archive_names_files_of_its_folder(project):
    folder = project / "data" / "got"
    for name in ["a\\..\\secret", "x" * 256, linked(folder)]:
        with zipfile.ZipFile(project / "v.zip", "w") as archive:
            archive.writestr(f"val/{name}", SECRET)
        with pytest.raises(QuantrustError, match=r"v\.zip: names the file "):
            unpack(project / "v.zip", folder)
        assert [path.name for path in folder.iterdir() if not path.is_symlink()] == []


def test_captions_name_images_of_their_folder(project, model_folders):
    turns = [{"from": "human", "value": "<image>\nwhat is there?"}, {"from": "gpt", "value": "a red circle and a 3"}]
    images = project / "data" / "images"
    for name in [*exploits(project), linked(images)]:
        (project / "captions.json").write_text(json.dumps([{"id": "7", "image": name, "conversations": turns}]))
        with pytest.raises(QuantrustError, match=r"captions\.json: record 0 \(id '7'\): names the file "):
            build_calibration_table(model_folders["idefics3"], project / "captions.json", images, samples=1, seed=0)


def test_questions_name_images_of_their_folder(project):
    images = project / "data" / "images"
    for name in [*exploits(project), linked(images)]:
        question = {"question_id": 5, "image_id": 7, "question": "what?", "image": name}
        (project / "q.json").write_text(json.dumps({"questions": [question]}))
        (project / "a.json").write_text(json.dumps({"annotations": [{"question_id": 5, "answers": ANSWERS}]}))
        with pytest.raises(QuantrustError, match=r"q\.json: question 5: names the file "):
            read_vqav2(project / "q.json", project / "a.json", images)
        (project / "v.json").write_text(json.dumps([{"image": name, "question": "what?", "answers": ANSWERS}]))
        with pytest.raises(QuantrustError, match=r"v\.json: question .*: names the file "):
            read_vizwiz(project / "v.json", images)


def test_a_template_of_image_names_stays_in_the_folder(project):
    question = {"question_id": 5, "image_id": 7, "question": "what?"}
    (project / "q.json").write_text(json.dumps({"questions": [question]}))
    (project / "a.json").write_text(json.dumps({"annotations": [{"question_id": 5, "answers": ANSWERS}]}))
    for template in ("../{image_id}.jpg", "/{image_id}.jpg"):
        with pytest.raises(QuantrustError, match=r"the name of images .* is not a file name"):
            read_vqav2(project / "q.json", project / "a.json", project / "data" / "images", template)


@pytest.mark.parametrize("form", ["vqav2", "vizwiz"])
def test_rows_of_the_hub_name_images_of_their_folder(form, project):
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    for name in ("..\\..\\secret", linked(project / "data" / "images", "7.jpg").removesuffix(".jpg")):
        row = {
            "question_id": name,
            "image_id": name,
            "question": "what?",
            "answers": ["red"] * 10,
            "image": {"bytes": buffer.getvalue(), "path": None},
        }
        rows = datasets.Dataset.from_list([row]).cast_column("image", datasets.Image())
        rows.to_parquet(project / "rows.parquet")
        with pytest.raises(QuantrustError, match=r"rows\.parquet: "):
            write_official([project / "rows.parquet"], form, project / "data")
        assert not (project / "data" / "annotations.json").exists()
