import itertools

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from quantrust.artifacts.tables import write_table
from quantrust.errors import QuantrustError
from quantrust.evaluation.mixtures import mixture_table, write_mixtures

SHARES = [1.0, 0.9, 0.67, 0.5, 0.33, 0.1, 0.0]


def questions(dataset, test, val=5):
    splits = ["test"] * test + ["val"] * val
    ids = [f"{dataset}-{index}" for index in range(len(splits))]
    return pl.DataFrame({"dataset": [dataset] * len(splits), "split": splits, "question_id": ids})


@pytest.fixture
def table():
    return mixture_table(questions("id", 40), questions("shift", 30), SHARES, seed=3)


def drawn(table, share, dataset):
    return set(table.filter((pl.col("id_share") == share) & (pl.col("dataset") == dataset))["question_id"])


def test_every_ratio_has_as_many_questions_as_the_smaller_test_set(table):
    assert table.group_by("id_share").len()["len"].to_list() == [30] * 7
    assert [len(drawn(table, share, "id")) for share in SHARES] == [30, 27, 20, 15, 10, 3, 0]
    smaller_id = mixture_table(questions("id", 10), questions("shift", 30), [0.5], seed=3)
    assert smaller_id.height == 10


def test_nothing_is_drawn_twice_and_only_from_test(table):
    assert not table.select("id_share", "dataset", "question_id").is_duplicated().any()
    test_ids = {f"id-{i}" for i in range(40)} | {f"shift-{i}" for i in range(30)}
    assert set(table["question_id"]) <= test_ids


def test_ratios_are_nested(table):
    for larger, smaller in itertools.pairwise(SHARES):
        assert drawn(table, smaller, "id") <= drawn(table, larger, "id")
        assert drawn(table, larger, "shift") <= drawn(table, smaller, "shift")


def test_the_draw_depends_on_the_seed_alone(table):
    id_rows, shift = questions("id", 40), questions("shift", 30)
    again = mixture_table(id_rows.sample(fraction=1, shuffle=True, seed=1), shift.reverse(), SHARES, seed=3)
    assert_frame_equal(again, table)
    assert drawn(mixture_table(id_rows, shift, SHARES, seed=4), 0.5, "id") != drawn(table, 0.5, "id")


def test_shifts_of_one_size_see_the_same_questions_in_distribution(table):
    other = mixture_table(questions("id", 40), questions("another", 30), SHARES, seed=3)
    assert drawn(other, 0.5, "id") == drawn(table, 0.5, "id")


@pytest.mark.parametrize("shares", [[1.1], [-0.1], [float("nan")], [0.5, 0.5]])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(QuantrustError, match="id_share"):
        mixture_table(questions("id", 4), questions("shift", 4), shares, seed=0)


def test_a_dataset_without_test_questions_is_named():
    with pytest.raises(QuantrustError, match="shift: has no questions in the split test"):
        mixture_table(questions("id", 4), questions("shift", 0), [0.5], seed=0)


def test_two_datasets_in_one_table_are_refused():
    both = pl.concat([questions("id", 4), questions("other", 4)])
    with pytest.raises(QuantrustError, match=r"\['id', 'other'\]"):
        mixture_table(both, questions("shift", 4), [0.5], seed=0)


def test_the_file_holds_the_table(tmp_path, table):
    write_table(questions("id", 40), tmp_path / "id.parquet")
    write_table(questions("shift", 30), tmp_path / "shift.parquet")
    paths = [tmp_path / f"{name}.parquet" for name in ("id", "shift", "out")]
    write_mixtures(*paths, id_shares=SHARES, seed=3)
    assert_frame_equal(pl.read_parquet(tmp_path / "out.parquet"), table)
