"""Match dumps: every image and caption alone, in plain loops, gives the same ranks and scores."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from quantrust.artifacts.tables import read_table, table_notes, write_table
from quantrust.confidence.scores import write_scores
from quantrust.data.queries import compared_text
from quantrust.data.questions import build_questions_table
from quantrust.errors import QuantrustError
from quantrust.inference import matching
from quantrust.inference.matching import dump_matches, nearest
from quantrust.inference.settings import MatchSettings
from quantrust.models.model_folder import prepare_model
from quantrust.quantization.checkpoint import load_checkpoint
from quantrust.quantization.quantize import quantize_model
from quantrust.tasks.task import load_task
from retrieval_model import write_retrieval

CAPTIONS = {
    "val": [["Red circle."], ["green bars", "two bars"]],
    "test": [
        ["A red circle.", "circle"],
        ["two green bars", "Two bars on the left."],
        ["a yellow square"],
        # a caption of another image once more, and one that is cut off
        ["a red circle", "square " * 40],
        ["left", "one green square on the left"],
    ],
}
SETTINGS = MatchSettings(rerank=4, batch_size=3, images_per_batch=2, images_per_chunk=2)
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("matching")
    texts = [compared_text(text) for split in CAPTIONS.values() for captions in split for text in captions]
    write_retrieval(folder / "published", texts, positions=35)
    prepare_model(folder / "published", folder / "prepared", "blip_2_retrieval")
    quantize_model(folder / "prepared", "rtn-w4g32-full", None, folder / "checkpoint")
    return folder / "checkpoint"


def write_pairs(folder: Path) -> Path:
    """Write a dataset with other sizes of pictures, and return its questions table."""
    rng = np.random.default_rng(0)
    records = []
    for split, images in CAPTIONS.items():
        for number, captions in enumerate(images):
            name = f"{split}{number}.png"
            size = (40 + 30 * number, 60, 3)
            Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).save(folder / name)
            sentences = [{"raw": caption} for caption in captions]
            records.append({"filename": name, "split": split, "sentences": sentences})
    (folder / "dataset.json").write_text(json.dumps({"images": records}))
    spec = {"format": "flickr30k", "annotations": folder / "dataset.json", "images": folder}
    out = folder / "pairs.parquet"
    build_questions_table("pairs", {split: spec | {"subset": split} for split in CAPTIONS}, out, folder / "skipped")
    return out


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def found(checkpoint, questions, tmp_path_factory):
    out = tmp_path_factory.mktemp("found") / "pairs.parquet"
    dump_matches(checkpoint, questions, out, SETTINGS, load_task("retrieval"))
    return out


def plainly(checkpoint, queries, most):
    """Return for each query the identifiers of what is ranked and their scores, the best first."""
    family, model, processor, _ = load_checkpoint(checkpoint)
    captions = queries.filter(question_kind="text_to_image")
    texts = dict(zip(captions["question_id"], map(compared_text, captions["question"]), strict=True))
    paths = dict(queries.select("image_id", "image").iter_rows())
    similarity, logit = {}, {}
    with torch.inference_mode():
        for image_id, path in paths.items():
            picture = Image.open(path).convert("RGB")
            images = family.encode_images(model, family.preprocess(processor, [picture]))
            for text_id, text in texts.items():
                embedded = family.text_embeddings(model, processor, [text], 35)[0]
                near = family.image_embeddings(model, images)[0] @ embedded
                similarity[image_id, text_id] = float(near.max())
                pair = family.pairs(model, processor, [text], images, most=35)
                logit[image_id, text_id] = float(family.matching_logits(model, pair)[0, 1])
    result = {}
    for row in queries.iter_rows(named=True):
        own = row["question_id"]
        pairs = [(own, text) for text in texts] if row["question"] == "" else [(image, own) for image in paths]
        best = sorted(pairs, key=lambda pair: -similarity[pair])[:most]
        scored = {pair: logit[pair] + similarity[pair] for pair in best}
        place = 1 if row["question"] == "" else 0
        result[own] = [(pair[place], scored[pair]) for pair in sorted(scored, key=lambda pair: -scored[pair])]
    return result


def test_ranks_and_scores_are_those_of_single_images_and_captions(checkpoint, questions, found):
    table, asked = read_table(found), pl.read_parquet(questions)
    assert table["question_id"].to_list() == asked["question_id"].to_list()
    differences, ranks = [], set()
    for split in CAPTIONS:
        expected = plainly(checkpoint, asked.filter(split=split), 4)
        answers = dict(asked.filter(split=split).select("question_id", "answers").iter_rows())
        for row in table.filter(split=split).iter_rows(named=True):
            ranked = expected[row["question_id"]]
            assert row["match_ids"] == [name for name, _ in ranked]
            differences += [abs(one - other) for one, (_, other) in zip(row["match_scores"], ranked, strict=True)]
            right = [place for place, (name, _) in enumerate(ranked, 1) if name in answers[row["question_id"]]]
            rank = row["rank"]
            assert rank == min(right, default=len(ranked) + 1)
            assert row["answer"] == ranked[0][0] and row["quality"] == float(rank == 1)
            for name, (kind, depth) in load_task("retrieval").recalls.items():
                assert row[name] == (float(rank <= depth) if kind == row["question_kind"] else None)
            ranks.add(rank)
    assert max(differences) < TOLERANCE
    # what makes the comparison worth something: what is looked for stands at several places, and behind all of them
    assert 5 in ranks and len(ranks) >= 3
    assert table_notes(found)["settings"] == SETTINGS.record()


def test_neither_batches_nor_files_of_features_nor_workers_change_what_is_found(
    checkpoint, questions, found, tmp_path, monkeypatch
):
    monkeypatch.setattr(matching, "HELD", 0)
    monkeypatch.setattr(matching, "COMPARED_AT_ONCE", 1)
    (tmp_path / "one").mkdir()
    dump_matches(checkpoint, questions, tmp_path / "one" / "a.parquet", SETTINGS, load_task("retrieval"), workers=1)
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["a.parquet"]
    one, other = read_table(tmp_path / "one" / "a.parquet"), read_table(found)
    plain = pl.exclude("match_scores")
    assert one.select(plain).equals(other.select(plain))
    larger = MatchSettings(rerank=4)
    dump_matches(checkpoint, questions, tmp_path / "b.parquet", larger, load_task("retrieval"))
    for table in (one, read_table(tmp_path / "b.parquet")):
        assert table.select(plain).equals(other.select(plain))
        scores = (table.explode("match_scores")["match_scores"] - other.explode("match_scores")["match_scores"]).abs()
        assert scores.max() < TOLERANCE


def test_captions_of_the_same_words_have_the_same_scores_and_come_in_their_order(found):
    twins = ["test0.png#0", "test3.png#0"]
    rows = [
        dict(zip(ids, scores, strict=True))
        for ids, scores in read_table(found).select("match_ids", "match_scores").iter_rows()
        if {*twins} <= {*ids}
    ]
    assert rows
    for row in rows:
        assert row[twins[0]] == row[twins[1]]
        places = [[*row].index(name) for name in twins]
        assert places[1] == places[0] + 1


def test_scores_hold_the_margin_of_the_two_best_and_who_hits(found, tmp_path):
    write_scores([found], None, tmp_path / "scores.parquet", ["match-margin"])
    scores, table = read_table(tmp_path / "scores.parquet"), read_table(found)
    margins = [best[0] - best[1] for best in table["match_scores"].to_list()]
    assert np.allclose(scores["match-margin"], margins) and min(margins) >= 0
    recalls = [*load_task("retrieval").recalls]
    assert scores.select(recalls).equals(table.select(recalls))


def test_the_nearest_are_those_of_plain_loops():
    generator = torch.Generator().manual_seed(0)
    images, texts = torch.randn(7, 3, 5, generator=generator), torch.randn(9, 5, generator=generator)
    images[4] = images[1]
    # the last caption is the fourth once more
    text_of = [*range(9), 3]
    captions = texts[text_of]
    expected = torch.tensor([[max(float(query @ text) for query in image) for text in captions] for image in images])
    for at_once in (1, 50, 1 << 20):
        found = nearest(images, texts, text_of, 4, at_once)
        for side, rows in (("image", expected), ("text", expected.T)):
            places, values = found[side]
            order = [sorted(range(len(row)), key=lambda k: (-round(float(row[k]), 5), k))[:4] for row in rows]
            assert places.tolist() == order
            assert torch.allclose(values, rows.gather(1, places), atol=1e-5)


def test_a_split_with_nothing_to_choose_from_is_refused(checkpoint, questions, tmp_path):
    table = read_table(questions)
    one = table.filter(pl.col("image_id").is_in(["val0.png", "test0.png"]))
    write_table(one, tmp_path / "one.parquet")
    with pytest.raises(QuantrustError, match=r"split val has 1 images and 1 captions; expected two of each"):
        dump_matches(checkpoint, tmp_path / "one.parquet", tmp_path / "out.parquet", SETTINGS, load_task("retrieval"))
    assert not (tmp_path / "out.parquet").exists()
