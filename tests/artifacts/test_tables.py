"""Tables of a study: whatever byte of one changes, its reader notices."""

import ast
import os
from pathlib import Path

import polars as pl
import pytest

from quantrust.artifacts import digests, parquet_seal
from quantrust.artifacts.parquet_seal import BLANK, KEY
from quantrust.artifacts.row_groups import read_row_groups, read_schema, writing_row_groups
from quantrust.artifacts.tables import (
    count_rows,
    read_others_table,
    read_table,
    scan_table,
    table_notes,
    write_table,
    write_tables,
)
from quantrust.digest import SCRIPTS
from quantrust.errors import QuantrustError

# The second text is what the place of a digest looks like in a footer, where the largest text of a column stands.
TABLE = pl.DataFrame({"id": ["1", f"\x18\x10{KEY}\x18@{BLANK}", None], "accuracy": [0.5, float("nan"), 1.0]})
READERS = {
    "read_table": read_table,
    "scan_table": lambda path: scan_table(path).collect(),
    "table_notes": table_notes,
    "count_rows": count_rows,
    "read_schema": read_schema,
    "read_row_groups": lambda path: list(read_row_groups(path)),
}


def write_row_groups(path: Path) -> None:
    rows = TABLE.to_arrow()
    with writing_row_groups(path, rows.schema, ["id"]) as writer:
        writer.write(rows)
        writer.write(rows)
        writer.describe({"settings": "{}", "scheme": "bf16"})


WRITERS = {"polars": lambda path: write_table(TABLE, path), "pyarrow": write_row_groups}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_changed_byte_is_noticed_wherever_it_is(writer, tmp_path):
    """In the data, the footer, its length, the digest: with the time and size of the file as they were."""
    path = tmp_path / "t.parquet"
    WRITERS[writer](path)
    whole, times = path.read_bytes(), path.stat()
    read_table(path)
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        (tmp_path / "new").write_bytes(changed)
        os.utime(tmp_path / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
        os.replace(tmp_path / "new", path)
        with pytest.raises(QuantrustError, match=r"t\.parquet is damaged.*; delete .* and run the same command again"):
            read_table(path)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("writer", WRITERS)
def test_every_reader_notices_and_reads_what_is_whole(reader, writer, tmp_path):
    path = tmp_path / "t.parquet"
    WRITERS[writer](path)
    READERS[reader](path)
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 3] ^= 4
    (tmp_path / "changed.parquet").write_bytes(changed)
    with pytest.raises(QuantrustError, match=r"changed\.parquet is damaged"):
        READERS[reader](tmp_path / "changed.parquet")
    for cut in (0, 11, 12, len(changed) - 1):
        (tmp_path / "cut.parquet").write_bytes(path.read_bytes()[:cut])
        with pytest.raises(QuantrustError, match=r"cut\.parquet is damaged, or is not an artifact of a study"):
            READERS[reader](tmp_path / "cut.parquet")
    with pytest.raises(QuantrustError, match=r"none\.parquet is missing; run the same command again"):
        READERS[reader](tmp_path / "none.parquet")
    with pytest.raises(QuantrustError, match=r"cannot be read \(Is a directory\)"):
        READERS[reader](tmp_path)


def test_what_is_read_is_what_was_written(tmp_path):
    for name, writer in WRITERS.items():
        path = tmp_path / f"{name}.parquet"
        writer(path)
        first = path.read_bytes()
        writer(path)
        assert path.read_bytes() == first
        assert read_table(path, ["accuracy"]).columns == ["accuracy"]
    assert read_table(tmp_path / "polars.parquet").equals(TABLE)
    assert read_table(tmp_path / "pyarrow.parquet").equals(pl.concat([TABLE, TABLE]))
    assert [len(rows) for rows in read_row_groups(tmp_path / "pyarrow.parquet")] == [3, 3]
    assert table_notes(tmp_path / "pyarrow.parquet") == {"settings": "{}", "scheme": "bf16"}
    assert table_notes(tmp_path / "polars.parquet") == {}


def test_a_file_that_was_found_whole_is_hashed_again_only_where_it_may_have_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "MOMENT", 0)
    hashed, digest = [], parquet_seal._digest
    monkeypatch.setattr(parquet_seal, "_digest", lambda *place: hashed.append(place) or digest(*place))
    path = tmp_path / "t.parquet"
    write_table(TABLE, path)
    hashed.clear()
    for _ in range(3):
        read_table(path)
        scan_table(path)
    assert len(hashed) == 1
    write_table(TABLE, path)
    hashed.clear()
    read_table(path)
    assert len(hashed) == 1


def test_of_tables_that_belong_together_none_is_written_where_one_fails(tmp_path):
    with pytest.raises(AttributeError):
        write_tables({tmp_path / "one.parquet": TABLE, tmp_path / "other.parquet": None})
    assert list(tmp_path.iterdir()) == []


def test_other_peoples_tables_are_read_and_damaged_artifacts_among_them_refused(tmp_path):
    TABLE.write_parquet(tmp_path / "own.parquet")
    write_table(TABLE, tmp_path / "t.parquet")
    for name in ("own", "t"):
        assert read_others_table(tmp_path / f"{name}.parquet").equals(TABLE)
    changed = bytearray((tmp_path / "t.parquet").read_bytes())
    changed[10] ^= 1
    (tmp_path / "t.parquet").write_bytes(changed)
    with pytest.raises(QuantrustError, match=r"t\.parquet is damaged"):
        read_others_table(tmp_path / "t.parquet")


@pytest.mark.parametrize("folder", ["[1]", "*", "?", "**", "{v1}", "[!a]", "a b", "\u00e9"])
def test_a_path_is_no_pattern(folder, tmp_path):
    """A star would read the tables of every folder beside it."""
    (tmp_path / "1").mkdir()
    write_table(pl.concat([TABLE, TABLE]), tmp_path / "1" / "t.parquet")
    path = tmp_path / folder / "t.parquet"
    write_table(TABLE, path)
    assert read_table(path).equals(TABLE) and read_others_table(path).equals(TABLE)
    assert scan_table(path).collect().equals(TABLE) and count_rows(path) == len(TABLE)
    assert table_notes(path) == {} and [len(rows) for rows in read_row_groups(path)] == [3]


def test_no_reader_of_tables_takes_a_path_for_a_pattern():
    readers = {"read_parquet", "scan_parquet", "read_csv", "scan_csv", "read_ndjson", "scan_ndjson", "read_ipc"}
    found = 0
    for path in sorted(SCRIPTS.rglob("*.py")):
        tree = ast.parse(path.read_text())
        called = {node.func: node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in readers:
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in called[node].keywords}
                assert keywords.get("glob") == "False", f"{path}, line {node.lineno}"
                found += 1
    assert found > 3


def test_no_other_module_reads_or_writes_parquet():
    """A reader that does not look at the digest would take damage for data."""
    # rows of the hub are other people's, and are streamed by the library that wrote them
    allowed = {*(SCRIPTS / "quantrust" / "artifacts").glob("*.py"), SCRIPTS / "quantrust" / "data" / "rows.py"}
    for path in sorted({*SCRIPTS.rglob("*.py")} - allowed):
        tree = ast.parse(path.read_text())
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        used |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert not {name for name in used if name and "parquet" in name and not name.endswith("parquet_seal")}, path


def test_a_table_without_a_place_for_a_digest_and_one_that_has_its_digest_are_not_sealed(tmp_path):
    TABLE.select("accuracy").write_parquet(tmp_path / "own.parquet")
    with pytest.raises(ValueError, match=r"own\.parquet has no entry quantrust\.sha256"):
        parquet_seal.seal(tmp_path / "own.parquet")
    write_table(TABLE, tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"t\.parquet is sealed already"):
        parquet_seal.seal(tmp_path / "t.parquet")
