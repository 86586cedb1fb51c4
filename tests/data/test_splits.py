"""Splits by image: shares, disjointness, published files."""

import datetime
import json
import shutil
from collections import Counter

import polars as pl
import pytest

from quantrust.data.splits import SPLIT_SCHEMA, read_split_file, split_by_image
from quantrust.errors import QuantrustError

SHARES = {"dev": 0.4, "val": 0.1, "test": 0.5}
ALL = ("dev", "val", "test")


def test_every_image_is_in_one_split_and_the_shares_are_kept():
    images = [str(number) for number in range(1000)]
    table = split_by_image(images, SHARES, seed=0)
    assert table.schema == SPLIT_SCHEMA
    assert sorted(table["image_id"]) == sorted(images)
    assert Counter(table["split"]) == {"dev": 400, "val": 100, "test": 500}
    assert table["split"].to_list() == sorted(table["split"], key=ALL.index)


def test_a_count_that_does_not_divide_is_cut_at_the_rounded_cumulative_shares():
    table = split_by_image(map(str, range(7)), SHARES, seed=0)
    # 0.4 x 7 = 2.8 and 0.5 x 7 = 3.5, rounded half up.
    assert Counter(table["split"]) == {"dev": 3, "val": 1, "test": 3}


def test_neither_order_nor_repetition_of_the_images_matters_and_the_seed_does():
    images = [str(number) for number in range(50)]
    table = split_by_image(images, SHARES, seed=1)
    assert table.equals(split_by_image(reversed(images * 3), SHARES, seed=1))
    assert not table.equals(split_by_image(images, SHARES, seed=2))


def test_a_seeds_draw_stays_what_it_is():
    table = split_by_image("abcdefghij", SHARES, seed=0)
    assert "".join(table["image_id"]) == "bfhi" + "d" + "acegj"


def test_a_split_of_no_share_gets_no_image():
    table = split_by_image("abc", {"dev": 0, "val": 0, "test": 1}, seed=0)
    assert set(table["split"]) == {"test"}


def test_a_split_that_would_be_empty_is_refused():
    with pytest.raises(QuantrustError, match=r"2 images leave none for the split val, whose share is 0\.1"):
        split_by_image("ab", SHARES, seed=0)


@pytest.fixture(params=["csv", "parquet", "json"])
def split_file(request, tmp_path):
    """Return a function that writes (image, split) pairs in one of the forms."""

    def write(pairs):
        path = tmp_path / f"splits.{request.param}"
        if request.param == "json":
            groups = {}
            for image_id, split in pairs:
                groups.setdefault(split, []).append(image_id)
            path.write_text(json.dumps(groups))
        else:
            table = pl.DataFrame(pairs, schema=["image_id", "split"], orient="row")
            table.write_csv(path) if request.param == "csv" else table.write_parquet(path)
        return path

    return write


def test_a_split_file_is_read_whatever_its_form_and_what_else_it_lists_is_left_out(split_file):
    path = split_file([(9, "test"), (3, "dev"), (42, "val"), (7, "val"), (3, "dev")])
    table = read_split_file(path, ["3", "7", "9", "9"], ALL)
    assert table.rows() == [("3", "dev"), ("7", "val"), ("9", "test")]


def test_an_image_in_two_splits_is_named(split_file):
    path = split_file([(3, "dev"), (7, "val"), (3, "test")])
    with pytest.raises(QuantrustError, match=r"splits\.\w+: image 3: is in the splits dev and test"):
        read_split_file(path, ["3", "7"], ALL)


def test_an_image_without_a_split_is_named(split_file):
    path = split_file([(3, "dev"), (7, "val"), (9, "test")])
    with pytest.raises(QuantrustError, match=r"image 5: is in no split \(of 2 like it among 4\)"):
        read_split_file(path, ["3", "9", "5", "6"], ALL)


def test_a_split_that_no_stage_reads_is_named(split_file):
    with pytest.raises(QuantrustError, match="image 3: is in the split 'train'; expected dev, val, test"):
        read_split_file(split_file([(3, "train")]), ["3"], ALL)


def test_a_needed_split_without_images_is_named(split_file):
    path = split_file([(3, "dev"), (7, "test")])
    assert len(read_split_file(path, ["3", "7"], ["test"])) == 2
    with pytest.raises(QuantrustError, match="puts none of the 2 images into the split val"):
        read_split_file(path, ["3", "7"], ALL)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.npy", "", "is not a split file; expected one that ends in"),
        ("s.csv", "image,split\n1,dev\n", "has no column image_id, only \\['image', 'split'\\]"),
        ("s.csv", "", "cannot be read as a table"),
        ("s.csv", "image_id,split\n1,\n", "has a row without image_id or split"),
        ("s.parquet", "x", "cannot be read as a table"),
        ("s.json", "[1]", "expected an object with a list of images for every split"),
        ("s.json", '{"dev": 1}', "split dev: expected a list of images, got int"),
        ("s.json", '{"dev": [1.5]}', r'expected an integer or a string in "dev", got 1\.5'),
        ("s.json", '{"dev": [', "is not valid JSON"),
    ],
)
def test_a_malformed_split_file_is_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(QuantrustError, match=rf"s\.\w+: .*{message}"):
        read_split_file(tmp_path / name, ["1"], ["dev"])


def test_identifiers_that_are_no_text_are_named(tmp_path):
    path = tmp_path / "s.json"
    for content, message in [
        ('{"dev": ["\\ud800"]}', '"dev" is .*lone surrogate'),
        ('{"\\ud800": ["1"]}', '"split" is .*lone surrogate'),
        ('{"dev": [null]}', 'expected an integer or a string in "dev", got None'),
        ('{"dev": [""]}', '"dev" is .*; expected an identifier of 1 to 1,000 characters'),
        ("[" * 100_000, "is nested too deeply"),
    ]:
        path.write_text(content)
        with pytest.raises(QuantrustError, match=rf"s\.json: {message}"):
            read_split_file(path, ["1"], ["dev"])


@pytest.mark.parametrize(
    "images", [[["1"]], [1.0], [b"1"], [{"id": 1}], [datetime.date(2020, 1, 1)], [True], [None]], ids=repr
)
def test_columns_that_hold_no_identifiers_are_named(tmp_path, images):
    pl.DataFrame({"image_id": images, "split": ["dev"]}).write_parquet(tmp_path / "s.parquet")
    with pytest.raises(QuantrustError, match=r"s\.parquet: has (image_id of the type|a row without image_id)"):
        read_split_file(tmp_path / "s.parquet", ["1"], ["dev"])


@pytest.mark.parametrize("kind", [pl.String, pl.Int8, pl.UInt64, pl.Categorical, pl.Enum(["1"])], ids=str)
def test_columns_of_integers_and_texts_are_read(tmp_path, kind):
    pl.DataFrame({"image_id": ["1"], "split": ["dev"]}).cast({"image_id": kind}).write_parquet(tmp_path / "s.parquet")
    assert read_split_file(tmp_path / "s.parquet", ["1"], ["dev"]).rows() == [("1", "dev")]


def test_the_path_of_a_split_file_is_no_pattern(split_file, tmp_path):
    path = split_file([(3, "dev"), (7, "test")])
    for folder in ("s[1]", "s*", "{v1}"):
        (tmp_path / folder).mkdir()
        moved = shutil.copy(path, tmp_path / folder / path.name)
        assert read_split_file(moved, ["3", "7"], ["test"]).rows() == [("3", "dev"), ("7", "test")]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
def test_a_missing_split_file_is_named(tmp_path, suffix):
    with pytest.raises(QuantrustError, match=rf"none\.{suffix}: no such file"):
        read_split_file(tmp_path / f"none.{suffix}", ["1"], ["dev"])


def test_a_split_whose_name_no_line_can_hold_is_refused_in_one_line(tmp_path):
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({"\n": [""]}))
    with pytest.raises(QuantrustError, match=r'splits\.json: "split" is .*; expected an identifier') as caught:
        read_split_file(path, "a", ["dev"])
    assert "\n" not in str(caught.value)
