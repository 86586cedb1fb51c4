"""Tables of three kinds of files are read as what a plain reader finds in them, or refused in one message."""

import csv
import json
import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantrust.data.records import read_records
from quantrust.data.table import Wanted, read_score_table
from quantrust.errors import QuantrustError

# Identifiers that are no numbers, so that they are texts in every kind of file.
IDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=8)
SHARES = st.floats(0.0, 1.0)
CONFIDENCES = st.floats(-1e300, 1e300)
ROWS = st.lists(
    st.fixed_dictionaries({"id": IDS, "quality": SHARES, "confidence": CONFIDENCES, "image": IDS}),
    min_size=1,
    max_size=20,
    unique_by=lambda row: row["id"],
)


def write(folder: Path, rows: list[dict[str, object]]) -> list[Path]:
    """Write rows as each kind of file, by the standard library where it can."""
    paths = [folder / f"t{suffix}" for suffix in (".csv", ".jsonl", ".parquet")]
    with paths[0].open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    paths[1].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pl.DataFrame(rows).write_parquet(paths[2])
    return paths


@given(rows=ROWS)
@settings(max_examples=60, deadline=None)
def test_every_kind_of_file_gives_the_rows_that_were_written(tmp_path_factory, rows):
    for path in write(tmp_path_factory.mktemp("tables"), rows):
        table = read_score_table(path, Wanted())
        found = table.answers.select("id", "quality", "confidence", "image").to_dicts()
        assert found == rows
        assert (table.format, table.has_images) == ("table", True)


def test_numbers_name_answers_and_truths_are_qualities(tmp_path):
    rows = [{"id": 7, "correct": True, "confidence": 1}, {"id": -1, "correct": False, "confidence": 0.5}]
    for path in write(tmp_path, rows):
        answers = read_score_table(path, Wanted()).answers
        assert answers.to_dict(as_series=False) == {
            "id": ["7", "-1"],
            "image": ["7", "-1"],
            "quality": [1.0, 0.0],
            "confidence": [1.0, 0.5],
        }


def test_columns_of_other_names_and_entries_of_objects_are_found(tmp_path):
    path = tmp_path / "t.jsonl"
    rows = [
        {"q": {"key": name}, "doc": {"image": {"id": 3}}, "doc.x": 0.5, "score": 1, "p": 0.25, "part": "b"}
        for name in "xy"
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    wanted = Wanted(id="q.key", quality="doc.x", confidence="p", image="doc.image.id", group="part")
    assert read_score_table(path, wanted).answers.to_dict(as_series=False) == {
        "id": ["x", "y"],
        "image": ["3", "3"],
        "group": ["b", "b"],
        "quality": [0.5, 0.5],
        "confidence": [0.25, 0.25],
    }


def test_a_column_of_pictures_is_passed_over(tmp_path):
    table = pl.DataFrame({"id": [1], "quality": [0.3], "confidence": [2], "image": [{"bytes": b"\xff", "path": "a"}]})
    table.write_parquet(tmp_path / "t.parquet")
    assert not read_score_table(tmp_path / "t.parquet", Wanted()).has_images


GOOD = '{"id": 1, "quality": 0.5, "confidence": 0.5}\n'
BAD = {
    "twice.csv": ("id,quality,confidence\n1,0,0.5\n1,1,0.5\n", "line 3: 'id' is '1', as in line 2; expected each"),
    "missing.csv": ("id,quality\n1,0.5\n", "has no column 'confidence', only 'id', 'quality'; .* --confidence"),
    "above.csv": ("id,quality,confidence\n1,1.5,0.5\n", "line 2: 'quality' is '1.5'; expected a number from 0 to 1"),
    "nan.csv": ("id,quality,confidence\n1,1,nan\n", "line 2: 'confidence' is 'nan'; expected a finite number"),
    "huge.csv": ("id,quality,confidence\n1,1,1e999\n", "'confidence' is '1e999'; expected a finite number"),
    "underscore.csv": ("id,quality,confidence\n1,1,1_0\n", "'confidence' is '1_0'; expected a finite number"),
    "empty.csv": ("", "holds no rows"),
    "header.csv": ("id,quality,confidence\n", "holds no rows"),
    "ragged.csv": ("id,quality,confidence\n1,1\n", "line 2: has 2 fields; expected 3"),
    "quote.csv": ('id,quality,confidence\n1,1,"0.5\n', "line 2: is not CSV"),
    "columns.csv": ("id,id,quality\n1,1,1\n", "names the column 'id' twice"),
    "null.csv": ("id,quality,confidence\n,1,0.5\n", "line 2: \"id\" is ''; expected an identifier"),
    "nan.jsonl": ('{"id": 1, "quality": NaN, "confidence": 0.5}\n', "line 1: 'quality' is nan"),
    "mixed.jsonl": (GOOD + '{"id": 2, "quality": "1", "confidence": 0.5}\n', "line 2: 'quality' is '1'"),
    "lacking.jsonl": (GOOD + '\n{"id": 2, "quality": 1}\n', "line 3: has no 'confidence'"),
    "truth.jsonl": ('{"id": 1, "quality": 1, "confidence": true}\n', "line 1: 'confidence' is True"),
    "large.jsonl": ('{"id": 1, "quality": 1, "confidence": 1' + "0" * 400 + "}\n", "expected a finite number"),
    "digits.jsonl": ('{"id": 1' + "0" * 5000 + "}\n", "line 1: cannot be read"),
    "list.jsonl": ("[1]\n", r"line 1: is \[1\]; expected an object"),
    "cut.jsonl": (GOOD[:-5], "line 1: is not valid JSON at line 1, column"),
    "deep.jsonl": ('{"id": ' + "[" * 100_000 + "]" * 100_000 + "}\n", "line 1: is nested too deeply"),
    "key.jsonl": ('{"id": 1, "id": 2}\n', "line 1: has the key 'id' twice"),
    "surrogate.jsonl": ('{"id": "\\ud800", "quality": 1, "confidence": 0.5}\n', "lone surrogate"),
    "float.jsonl": ('{"id": 1.5, "quality": 1, "confidence": 0.5}\n', "expected an integer or a string"),
    "no.parquet": ("no Parquet", "cannot be read as Parquet"),
    "other.txt": ("", "is no table by its name; expected a table in a file whose name ends in .parquet, .csv or .json"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_table_that_cannot_be_read_is_named_with_its_line(tmp_path, name):
    content, message = BAD[name]
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(QuantrustError, match=message) as caught:
        read_score_table(path, Wanted())
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_lines_that_share_no_key_and_many_columns_do_not_take_the_square_of_their_number(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("".join(f'{{"{number}": 1}}\n' for number in range(20_000)))
    with pytest.raises(QuantrustError, match=r"t\.jsonl: has 20,000 lines and 20,000 different keys, a column each;"):
        read_records(path)
    path = tmp_path / "t.csv"
    path.write_text(",".join(map(str, range(200_000))) + "\n" + "1" + ",1" * 199_999)
    assert len(read_records(path).columns) == 200_000


def test_text_that_is_not_utf_8_is_refused_with_its_place(tmp_path):
    for name in ("t.csv", "t.jsonl"):
        (tmp_path / name).write_bytes(b"id,quality\n1,\xff\n")
        with pytest.raises(QuantrustError, match=rf"{name}: is not UTF-8 text at byte 13"):
            read_records(tmp_path / name)


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    for name, message in (("pipe", "is a pipe"), ("folder", "is a folder"), ("none", "no such file")):
        with pytest.raises(QuantrustError, match=message):
            read_records(tmp_path / f"{name}.csv")
