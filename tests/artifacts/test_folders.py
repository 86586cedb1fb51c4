"""Artifacts that are folders: whatever byte of one changes, whatever file is lost or added, its readers notice."""

import ast
import json
import os
import shutil
from pathlib import Path

import pytest

from quantrust.artifacts import digests, folder_record
from quantrust.artifacts.digests import digest_of
from quantrust.artifacts.folder_record import OF_SNAKEMAKE, RECORD, check_file, check_folder
from quantrust.artifacts.folders import artifact_folder
from quantrust.data.images import find_bad_images, read_image
from quantrust.digest import SCRIPTS
from quantrust.errors import QuantrustError
from quantrust.files import read_json

FILES = {"annotations.json": b'{"annotations": []}', "images/1.png": b"\x89PNG", "images/2.png": b"", "é": b"x"}


@pytest.fixture
def folder(tmp_path) -> Path:
    with artifact_folder(tmp_path / "data" / "scenes") as partial:
        (partial / "images").mkdir()
        for name, content in FILES.items():
            (partial / name).write_bytes(content)
    return tmp_path / "data" / "scenes"


def change(path: Path, place: int) -> None:
    """Flip a bit of a file, in a new file with the old one's time, as a broken disk would show it."""
    content, times = bytearray(path.read_bytes()), path.stat()
    content[place] ^= 1 << place % 8
    path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_what_was_written_is_whole(folder):
    check_folder(folder)
    (folder / OF_SNAKEMAKE).touch()
    check_folder(folder)
    assert json.loads((folder / RECORD).read_text())["files"].keys() == FILES.keys()


def test_a_changed_byte_is_noticed_wherever_it_is(folder, tmp_path):
    """In the files and in the record; and where single files are read."""
    number = 0
    for name in (*FILES, RECORD):
        for place in range((folder / name).stat().st_size):
            copy = shutil.copytree(folder, tmp_path / "copies" / str(number))
            number += 1
            change(copy / name, place)
            with pytest.raises(QuantrustError, match=rf"{name} is damaged.*; delete {copy} and run the same command"):
                check_folder(copy)
            with pytest.raises(QuantrustError, match="is damaged"):
                check_file(copy / ("annotations.json" if name == RECORD else name))


def test_files_that_are_lost_or_added_are_named(folder):
    (folder / "images" / "3.png").touch()
    for check in (lambda: check_folder(folder), lambda: check_folder(folder, lambda name: False)):
        with pytest.raises(QuantrustError, match=r"holds 'images/3\.png', which its .* does not list; take it out, or"):
            check()
    with pytest.raises(QuantrustError, match=r"3\.png is not listed by"):
        check_file(folder / "images" / "3.png")
    (folder / "images" / "3.png").unlink()
    (folder / "images" / "2.png").unlink()
    with pytest.raises(QuantrustError, match=r"lacks 'images/2\.png', which its .* lists"):
        check_folder(folder)
    os.mkfifo(folder / "images" / "2.png")
    for check in (check_folder, lambda folder: check_file(folder / "images" / "2.png")):
        with pytest.raises(QuantrustError, match=r"2\.png is missing, though .* lists it"):
            check(folder)


def test_a_folder_without_its_record_is_no_artifact(folder):
    (folder / RECORD).unlink()
    with pytest.raises(
        QuantrustError, match=r"scenes is not an artifact of a study, or is incomplete: there is no quan"
    ):
        check_folder(folder)
    with pytest.raises(QuantrustError, match=r"none is missing: there is no quantrust-digests\.json in it; delete"):
        check_folder(folder / "none")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 1}', '{"files": {"a": 1}}', "[" * 10**5, '{"files": {}}'])
def test_a_record_that_is_none_is_damaged(text, folder):
    (folder / RECORD).write_text(text)
    with pytest.raises(QuantrustError, match=r"quantrust-digests\.json is damaged"):
        check_folder(folder)


def test_a_record_whose_entries_are_none_is_damaged(folder):
    """Whoever forges one forges its digest too."""
    for entry in (1, {}, {"bytes": "x", "sha256": "y"}, {"bytes": 1}):
        (folder / RECORD).write_text(folder_record._text({"a": entry}))
        with pytest.raises(QuantrustError, match=r"quantrust-digests\.json is damaged"):
            check_folder(folder)


def test_files_of_users_pass_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_record, "digest_of", lambda path: pytest.fail("it was read"))
    (tmp_path / "a.json").write_text("[]")
    for path in (tmp_path / "a.json", tmp_path / "none" / "a.json", Path("a.json"), tmp_path):
        check_file(path)


def test_json_and_images_of_an_artifact_are_checked_where_they_are_read(folder):
    for name, place in (("annotations.json", 3), ("images/1.png", 0)):
        change(folder / name, place)
    with pytest.raises(QuantrustError, match=r"annotations\.json is damaged"):
        read_json(folder / "annotations.json")
    image = folder / "images" / "1.png"
    with pytest.raises(QuantrustError, match=r"1\.png is damaged"):
        read_image(image)
    # an image that cannot be read may be left out of a study; damage to what it wrote stops it
    with pytest.raises(QuantrustError, match=r"1\.png is damaged"):
        find_bad_images("scenes", [str(image)])


def test_a_file_is_hashed_once_unless_it_changed(folder, monkeypatch):
    monkeypatch.setattr(digests, "MOMENT", 0)
    monkeypatch.setattr(digests, "AT_ONCE", 4)
    hashed, sha256, file_digest = [], digests.hashlib.sha256, digests.hashlib.file_digest
    monkeypatch.setattr(digests.hashlib, "file_digest", lambda *what: hashed.append("large") or file_digest(*what))
    copy = shutil.copytree(folder, folder.parent / "copy")
    check_folder(copy)
    monkeypatch.setattr(digests.hashlib, "sha256", lambda *what: hashed.append("small") or sha256(*what))
    for _ in range(3):
        check_folder(copy)
        check_file(copy / "images" / "1.png")
    assert hashed == ["large"]
    first = digest_of(copy / "é")
    change(copy / "é", 0)
    assert digest_of(copy / "é") != first


def test_weights_and_the_librarys_files_are_opened_only_where_the_folder_was_checked():
    """`family_name_of` checks a folder before the library reads it, `weight_files` weights before they are opened."""
    checked = {
        # after `check_folder` in the same function, or in `load_checkpoint`
        "load_file": {"quantization/checkpoint.py", "embedded/checkpoints.py"},
        "safe_open": {
            "confidence/selector.py",
            "quantization/checkpoint.py",
            "quantization/export.py",
            # of the files that `weight_files` returns
            "models/weights.py",
            "models/streamed_weights.py",
        },
        # after `family_name_of`, which every way to a family takes
        "from_pretrained": {
            "models/loading.py",
            "models/processing.py",
            "models/skeleton.py",
        },
    }
    package, found = SCRIPTS / "quantrust", {name: set() for name in checked}
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else None
            if name in found:
                found[name].add(path.relative_to(package).as_posix())
    assert found == checked
