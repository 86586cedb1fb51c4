"""Plans of chunks, shards and batches, worked out by hand, and what holds for all of them."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantrust.artifacts.tables import write_table
from quantrust.inference.chunks import batch_by_length, chunks_digest, cut_into_chunks, shard_chunks


def test_all_questions_of_an_image_are_in_its_chunk():
    table = pl.DataFrame({"image": list("aabcbdae"), "split": ["test"] * 8, "n": range(8)})
    assert [chunk["n"].to_list() for chunk in cut_into_chunks(table, 2)] == [[0, 1, 2, 4, 6], [3, 5], [7]]
    assert cut_into_chunks(table, 2)[0].columns == ["image", "split", "n"]
    assert [chunk["n"].to_list() for chunk in cut_into_chunks(table, 99)] == [list(range(8))]
    assert cut_into_chunks(table.clear(), 2) == []


def test_a_split_is_cut_alike_with_and_without_those_before_it():
    table = pl.DataFrame({"image": list("abcdeffg"), "split": ["dev"] * 3 + ["test"] * 5, "n": range(8)})
    assert [chunk["n"].to_list() for chunk in cut_into_chunks(table, 2)] == [[0, 1], [2], [3, 4], [5, 6, 7]]
    test = table.filter(pl.col("split") == "test")
    assert [chunk["n"].to_list() for chunk in cut_into_chunks(test, 2)] == [[3, 4], [5, 6, 7]]


@pytest.mark.parametrize(
    ("sizes", "shards", "expected"),
    [
        ([5, 5, 5, 5], 2, [[0, 1], [2, 3]]),
        # 3, 8 and 15.5 of 20 are the middles; the thirds end at 6.7 and 13.3
        ([6, 4, 1, 9], 3, [[0], [1, 2], [3]]),
        ([90, 5, 5], 2, [[0], [1, 2]]),
        ([7], 3, [[], [0], []]),
        ([], 2, [[], []]),
    ],
)
def test_shards_by_hand(sizes, shards, expected):
    assert [list(shard_chunks(sizes, shard, shards)) for shard in range(1, shards + 1)] == expected


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 12))
def test_shards_take_every_chunk_once_in_order_and_are_even_to_half_a_chunk_at_either_end(sizes, shards):
    parts = [list(shard_chunks(sizes, shard, shards)) for shard in range(1, shards + 1)]
    assert [chunk for part in parts for chunk in part] == list(range(len(sizes)))
    for part in parts:
        assert sum(sizes[chunk] for chunk in part) <= sum(sizes) / shards + max(sizes)


def test_batches_are_of_like_lengths_the_longest_first():
    assert batch_by_length([3, 9, 3, 5, 9, 1, 4], 3) == [[1, 4, 3], [6, 0, 2], [5]]


def test_a_plan_depends_on_the_questions_and_on_the_images_of_a_chunk(tmp_path):
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    write_table(pl.DataFrame({"image": ["x"]}), first)
    write_table(pl.DataFrame({"image": ["y"]}), second)
    assert len({chunks_digest(first, 2), chunks_digest(second, 2), chunks_digest(first, 3)}) == 3
    assert chunks_digest(first, 2) == chunks_digest(first, 2)
