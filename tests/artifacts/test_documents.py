"""Tables, figures and pages of reports: whatever byte of one changes, or of its digest, its reader notices."""

import hashlib
import os

import polars as pl
import pytest

from quantrust.artifacts.documents import check_document, writing_document
from quantrust.artifacts.tables import read_csv, write_csv
from quantrust.digest import SCRIPTS
from quantrust.errors import QuantrustError

TABLE = pl.DataFrame({"scheme": ["bf16", "rtn-w2c"], "accuracy": [0.5, 0.25]})


def test_the_digest_stands_beside_a_document_as_sha256sum_writes_it(tmp_path):
    write_csv(TABLE, tmp_path / "tables" / "accuracy.csv")
    digest = hashlib.sha256((tmp_path / "tables" / "accuracy.csv").read_bytes()).hexdigest()
    assert (tmp_path / "tables" / ".digests" / "accuracy.csv.sha256").read_text() == f"{digest}  accuracy.csv\n"
    assert read_csv(tmp_path / "tables" / "accuracy.csv").equals(TABLE)
    assert read_csv(tmp_path / "tables" / "accuracy.csv", columns=["scheme"]).columns == ["scheme"]


def test_a_changed_byte_is_noticed_wherever_it_is(tmp_path):
    path = tmp_path / "accuracy.csv"
    write_csv(TABLE, path)
    for changed in (path, tmp_path / ".digests" / "accuracy.csv.sha256"):
        whole, times = changed.read_bytes(), changed.stat()
        for place in range(len(whole)):
            content = bytearray(whole)
            content[place] ^= 1 << place % 8
            (tmp_path / "new").write_bytes(content)
            os.utime(tmp_path / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
            os.replace(tmp_path / "new", changed)
            with pytest.raises(QuantrustError, match=r"accuracy\.csv is damaged, or was edited.*; delete .* and run"):
                read_csv(path)
        changed.write_bytes(whole)
    read_csv(path)


def test_what_is_missing_or_unreadable_is_named(tmp_path):
    path = tmp_path / "index.html"
    with pytest.raises(QuantrustError, match=r"index\.html is missing; run the same command again: `snakemake .*html`"):
        check_document(path)
    with writing_document(path) as partial:
        partial.write_text("<html>")
    (tmp_path / ".digests" / "index.html.sha256").unlink()
    with pytest.raises(QuantrustError, match=r"index\.html is damaged, or was edited"):
        check_document(path)


def test_a_document_that_is_not_finished_leaves_the_old_one_and_its_digest(tmp_path):
    path = tmp_path / "index.html"
    with writing_document(path) as partial:
        partial.write_text("old")
    with pytest.raises(ValueError, match="no"), writing_document(path) as partial:
        partial.write_text("new")
        raise ValueError("no")
    check_document(path)
    assert path.read_text() == "old"
    assert {entry.name for entry in tmp_path.iterdir()} == {"index.html", ".digests"}


def test_reports_and_artifacts_are_written_and_read_with_their_digests_alone():
    """Who wrote or read them otherwise would leave the digest out."""
    package = SCRIPTS / "quantrust"
    # `files` makes them, `export` writes for other programs, `user_tables` reads what a user gives
    allowed = {"atomic_directory": {"files.py", "quantization/export.py"}, "read_csv": {"data/user_tables.py"}}
    found = {name: set() for name in allowed}
    for path in package.rglob("*.py"):
        place, text = path.relative_to(package).as_posix(), path.read_text()
        if place.startswith("report/"):
            assert "atomic_path" not in text and "pl.read_csv" not in text, path
        found["read_csv"] |= {place} if "pl.read_csv" in text else set()
        found["atomic_directory"] |= {place} if "atomic_directory" in text else set()
    elsewhere = {name: {one for one in places if not one.startswith("artifacts/")} for name, places in found.items()}
    assert elsewhere == allowed
