"""The job of a dataset's answers goes on with the variant's other datasets: the same bytes, and nothing made twice."""

import os
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from quantrust.artifacts.folder_record import write_record
from quantrust.artifacts.made_early import locked, waits
from quantrust.artifacts.tables import read_table, write_table
from quantrust.errors import QuantrustError
from quantrust.inference import features as features_module
from quantrust.inference import preprocessing
from quantrust.inference.dump_job import answer_datasets
from quantrust.inference.dumps import Dump
from quantrust.inference.features import dump_features
from quantrust.inference.preprocessing import preprocess_images
from quantrust.inference.settings import DumpSettings
from quantrust.tasks.task import load_task

SETTINGS = {"max_new_tokens": 3, "top_k": 8, "batch_size": 5, "images_per_batch": 3, "images_per_chunk": 4}


@pytest.fixture
def dumps(variants, tmp_path: Path) -> list[Dump]:
    """A variant and three datasets, each a part of its questions."""
    variant = variants["idefics3"]
    table = read_table(variant.questions)
    made = []
    for number, name in enumerate(("first", "second", "third")):
        path = tmp_path / "questions" / f"{name}.parquet"
        write_table(table.slice(4 * number, 4), path)
        made.append(
            Dump(
                checkpoint=str(variant.checkpoint),
                questions=str(path),
                images=(str(variant.questions.parent),),
                given={"settings": SETTINGS, "task": "vqa", "code": []},
                place=str(tmp_path / "features" / f"{name}.parquet"),
                made=str(tmp_path / "made" / name),
            )
        )
    return made


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the questions tables that are answered from now on."""
    asked = []

    def noting(checkpoint, questions, *rest, **more):
        asked.append(Path(questions).stem)
        dump_features(checkpoint, questions, *rest, **more)

    monkeypatch.setattr(features_module, "dump_features", noting)
    return asked


def answer(own: Dump, *others: Dump, **how) -> None:
    answer_datasets(own, lambda: others, **how)


def test_answers_that_another_job_made_have_the_bytes_of_their_own_job(dumps, answered, tmp_path):
    first, second, third = dumps
    answer(first, second, third)
    assert answered == ["first", "second", "third"]
    assert Path(first.place).is_file() and not Path(second.place).exists()
    answer(second, third)
    answer(third)
    assert answered == ["first", "second", "third"]
    assert not list((tmp_path / "made").iterdir())
    for dump in dumps:
        alone = tmp_path / "alone.parquet"
        dump_features(dump.checkpoint, dump.questions, alone, DumpSettings(**SETTINGS), load_task("vqa"))
        assert Path(dump.place).read_bytes() == alone.read_bytes()


def test_what_waits_is_taken_only_where_it_is_what_the_job_would_make(dumps, answered):
    first, second, third = dumps
    answer(first, second, third)
    write_table(read_table(second.questions).head(2), second.questions)
    answer(second)
    changed = replace(third, given={**third.given, "settings": {**SETTINGS, "max_new_tokens": 1}})
    answer(changed)
    assert answered == ["first", "second", "third", "second", "third"]
    assert [pl.read_parquet(dump.place).height for dump in (second, changed)] == [2, 4]
    assert pl.read_parquet(changed.place)["token_ids"].list.len().max() == 1


def test_damaged_answers_that_wait_are_made_again(dumps, answered):
    first, second, _ = dumps
    answer(first, second)
    path = Path(second.made, "second.parquet")
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    answer(second)
    assert answered == ["first", "second", "second"]
    assert Path(second.place).read_bytes() == whole


def test_another_dataset_that_cannot_be_answered_is_left_to_its_own_job(dumps, caplog, tmp_path):
    first, second, third = dumps
    wrong = tmp_path / "questions" / "second.parquet"
    write_table(read_table(wrong).with_columns(question=pl.lit("a <image>")), wrong)
    answer(first, second, third)
    assert Path(first.place).is_file()
    assert [waits(dump.made, dump.key()) for dump in (second, third)] == [False, True]
    assert "second.parquet is left to its own job:" in caplog.text
    with pytest.raises(QuantrustError, match="holds '<image>'"):
        answer(second)


def test_what_another_job_makes_is_left_to_it_and_nothing_is_begun_when_the_time_is_over(dumps, answered):
    first, second, third = dumps
    with locked(second.made, wait=False) as held:
        assert held
        answer(first, second)
    answer(third, second, longest=-1)
    assert answered == ["first", "third"]


@pytest.mark.parametrize("place", ["making", "choosing"])
def test_a_job_keeps_its_own_answers_whatever_goes_wrong_with_others(dumps, monkeypatch, caplog, place):
    first, second, _ = dumps

    def others():
        if place == "choosing":
            raise RuntimeError("no more of this")
        yield second

    def failing(checkpoint, questions, *rest, **more):
        if questions == second.questions:
            raise MemoryError("no more of this")
        dump_features(checkpoint, questions, *rest, **more)

    monkeypatch.setattr(features_module, "dump_features", failing)
    answer_datasets(first, others)
    assert Path(first.place).is_file() and not Path(second.made).exists()
    assert "is left to its own job, and so is all else" in caplog.text and "no more of this" in caplog.text


def test_what_other_jobs_cannot_choose_among_stops_nothing(dumps, caplog):
    def refuse():
        raise QuantrustError("no config")

    answer_datasets(dumps[0], refuse)
    assert "what else the run asks for is left to its own job: no config" in caplog.text


def test_answers_that_no_run_came_for_go_when_their_job_makes_others(dumps, answered):
    first, second, _ = dumps
    answer(first, second)
    changed = replace(second, given={**second.given, "settings": {**SETTINGS, "max_new_tokens": 1}})
    answer(changed)
    assert answered == ["first", "second", "second"] and not Path(second.made).exists()


def test_a_job_ends_once_another_one_has_made_its_answers(dumps, answered):
    first, second, third = dumps

    def others():
        yield second
        other.close()
        answer(third, first)
        yield replace(third, begun=0)
        pytest.fail("asked for more")

    other = ExitStack()
    other.enter_context(locked(first.made, wait=False))
    answer_datasets(first, others)
    assert answered == ["second", "third", "first"]
    assert Path(first.place).is_file() and not Path(first.made).exists()


def test_a_job_whose_answers_another_one_makes_goes_on_before_it_waits(dumps, answered):
    first, second, third = dumps

    def others():
        yield second
        # the other job gives up
        other.close()
        yield third

    other = ExitStack()
    other.enter_context(locked(first.made, wait=False))
    answer_datasets(first, others)
    assert answered == ["second", "third", "first"]
    assert Path(first.place).is_file()


def test_what_its_own_job_left_since_the_run_began_is_not_made_again(dumps, answered):
    """It may end between the look for it and the lock."""
    first, second, _ = dumps
    answer(second)
    ended = Path(second.place).stat().st_mtime_ns
    answer(first, replace(second, begun=ended))
    assert answered == ["second", "first"] and not Path(second.made).exists()
    # what an earlier run left is made anew
    answer(first, replace(second, begun=ended + 1))
    assert answered == ["second", "first", "first", "second"]


def test_variants_that_are_asked_the_same_preprocess_each_picture_once(dumps, tmp_path, monkeypatch):
    first, *_ = dumps
    counts = []

    def noting(family, processor, images, *more):
        counts.append(len(images))
        return preprocess_images(family, processor, images, *more)

    monkeypatch.setattr(preprocessing, "preprocess_images", noting)
    other = replace(first, place=str(tmp_path / "other" / "first.parquet"), made=str(tmp_path / "made" / "other"))
    worded = replace(other, given={**first.given, "task": "vqa", "settings": {**SETTINGS, "prompt": "Say: {question}"}})
    answer(first, other)
    answer(other)
    pictures = read_table(first.questions)["image"].n_unique()
    assert sum(counts) == pictures
    assert Path(first.place).read_bytes() == Path(other.place).read_bytes()
    # another prompt is another question, and nothing is taken over
    answer(first, worded)
    assert sum(counts) == 3 * pictures


def test_a_changed_variant_is_asked_again(dumps, answered, tmp_path):
    first, second, _ = dumps
    shutil.copytree(first.checkpoint, tmp_path / "checkpoint")
    first, second = (replace(dump, checkpoint=str(tmp_path / "checkpoint")) for dump in (first, second))
    answer(first, second)
    os.chmod(tmp_path / "checkpoint" / "quantization.json", 0o644)
    Path(tmp_path, "checkpoint", "note.txt").write_text("another")
    write_record(tmp_path / "checkpoint")
    assert not waits(second.made, second.key())
