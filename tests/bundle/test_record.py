"""What a bundle's folder must be like to be opened: every byte as written, and nothing found by a name in a file."""

import json
import os
import shutil

import pytest

from bundled_study import write
from quantrust.artifacts.folder_record import write_record
from quantrust.bundle.record import MOST_BYTES, read_bundle
from quantrust.errors import QuantrustError


@pytest.fixture
def folder(bundle_folder, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(bundle_folder, tmp_path / "bundle")


def rewrite(folder, change):
    """Change the record, and seal the folder again, as somebody would who means harm."""
    path = folder / "bundle.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    write_record(folder)


def test_a_flipped_byte_in_any_file_is_noticed(folder):
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        written = path.read_bytes()
        for place in (0, len(written) // 2, len(written) - 1):
            flipped = bytearray(written)
            flipped[place] ^= 1
            path.write_bytes(flipped)
            with pytest.raises(QuantrustError, match="get the bundle again"):
                read_bundle(folder)
        path.write_bytes(written)
    read_bundle(folder)


def test_a_file_that_is_missing_or_added_is_noticed(folder):
    (folder / "extra.txt").write_text("more")
    with pytest.raises(QuantrustError, match=r"extra.txt.* does not list"):
        read_bundle(folder)
    (folder / "extra.txt").unlink()
    (folder / "README.md").unlink()
    with pytest.raises(QuantrustError, match=r"lacks .README.md."):
        read_bundle(folder)


def test_another_folder_is_no_bundle(tmp_path):
    with pytest.raises(QuantrustError, match="expected the folder of a bundle"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("name", ["bundle.json", "quantrust-digests.json"])
def test_a_pipe_or_a_file_without_end_is_not_read(folder, name):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(QuantrustError, match="is missing, or is no file"):
        read_bundle(folder)
    (folder / name).unlink()
    with open(folder / name, "wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(QuantrustError, match="has more than"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=1), "format 1, this version reads 2"),
        (lambda c: c["files"].update({"../../etc/passwd": {"bytes": 1, "sha256": "0"}}), "does not list the files"),
        (lambda c: c["files"].pop("README.md"), "does not list the files"),
        (lambda c: c.update(files=None), "does not list the files"),
        (lambda c: c.update(estimator="guess"), "estimator is 'guess': no estimator of this name"),
        (lambda c: c.update(estimator=7), "estimator is 7, expected str"),
        (lambda c: c.update(estimator="maxprob+platt"), "has no calibrator"),
        (lambda c: c.update(estimator="margin"), "has operating points of 'maxprob'"),
        (lambda c: c.update(calibrator={"method": "temperature", "log_temperature": 0.0}), "has a calibrator"),
        (lambda c: c.update(calibrator={"method": "magic"}), "unknown calibration 'magic'"),
        (lambda c: c.update(extra=1), "unknown entry 'extra'"),
        (lambda c: c.pop("risk"), "lacks risk"),
        (lambda c: c.update(operating_points=None), "operating_points is None"),
        (lambda c: c["operating_points"]["points"][0].update(threshold="0.5"), "threshold is '0.5', expected float"),
        (lambda c: c["operating_points"]["points"][0].update(threshold=10**400), "threshold is 1000"),
        (lambda c: c["settings"].update(prompt="no place"), "the prompt has no {question}"),
        (lambda c: c["settings"].update(batch_size=0), "batch_size is 0; expected a number from 1"),
        (lambda c: c["settings"].update(images_per_chunk=True), "images_per_chunk is True, expected int"),
    ],
)
def test_a_record_that_is_whole_but_wrong_is_refused(folder, change, message):
    rewrite(folder, change)

    with pytest.raises(QuantrustError) as raised:
        read_bundle(folder)

    assert message in str(raised.value)


def test_weights_are_linked_and_a_rebuilt_checkpoint_leaves_the_bundle_alone(bundled_study, tmp_path):
    folder = write(bundled_study, tmp_path / "bundle")
    weights = "checkpoint/model.safetensors"
    assert (folder / weights).samefile(bundled_study.folder / weights)


def test_the_same_study_gives_the_same_bytes(bundled_study, bundle_folder, tmp_path):
    again = write(bundled_study, tmp_path / "again")
    names = sorted(path.relative_to(again).as_posix() for path in again.rglob("*") if path.is_file())
    assert names == sorted(
        path.relative_to(bundle_folder).as_posix() for path in bundle_folder.rglob("*") if path.is_file()
    )
    for name in names:
        assert (again / name).read_bytes() == (bundle_folder / name).read_bytes()
