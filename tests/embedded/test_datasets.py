"""The embedded datasets: deterministic, disjoint, in the official formats; people disagree over what is ambiguous."""

import filecmp
import json
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quantrust.artifacts.folder_record import RECORD
from quantrust.data.format import files_of, load_format
from quantrust.data.formats.scene_captions import INSTRUCTION
from quantrust.data.questions import build_questions_table
from quantrust.embedded.catalogue import written_datasets
from quantrust.embedded.datasets import (
    generate,
    majority,
    select_adversarial,
    write_dataset,
)
from quantrust.embedded.digits import SHARES, digit_banks
from quantrust.embedded.scene_captions import CAPTIONERS
from quantrust.embedded.scene_questions import KINDS, RARE_KINDS, UNANSWERABLE, ask, caption
from quantrust.embedded.scenes import ILLEGIBLE, SIZE, Item, Percept, Scene, name_colour, perceive, true_percepts
from quantrust.errors import QuantrustError
from quantrust.study.inputs import official_files
from quantrust.tasks.task import load_task

SCENES = {"images": {"dev": 4, "val": 2, "test": 3}, "questions_per_image": 5, "captions": 3, "seed": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("embedded")
    write_dataset("scenes", path / "scenes", SCENES)
    write_dataset("scenes-language-candidates", path / "candidates", {"images": 6, "questions_per_image": 4, "seed": 5})
    write_dataset("scenes-multimodal", path / "multimodal", {"images": 8, "seed": 5})
    return path


def _same_tree(a: Path, b: Path) -> bool:
    comparison = filecmp.dircmp(a, b)
    differs = comparison.left_only or comparison.right_only or comparison.diff_files
    return not differs and all(_same_tree(a / name, b / name) for name in comparison.common_dirs)


def test_no_digit_image_serves_two_splits():
    sources = [set(bank.sources.tolist()) for bank in digit_banks().values()]
    assert len(digit_banks()) == len(SHARES)
    assert sum(len(s) for s in sources) == len(set().union(*sources)) == 1797


def test_the_same_seed_writes_the_same_bytes(folder, tmp_path):
    write_dataset("scenes", tmp_path / "scenes", SCENES)
    assert _same_tree(folder / "scenes", tmp_path / "scenes")


def test_a_larger_set_begins_with_the_scenes_of_a_smaller_one():
    small, large = list(generate("test", 2, 3, 1)), list(generate("test", 4, 3, 1))
    assert [s.scene for s in small] == [s.scene for s in large[:2]]


def _table(folder: Path, out: Path) -> pl.DataFrame:
    splits = {
        split: {
            "format": "vqav2",
            "questions": folder / f"questions_{split}.json",
            "annotations": folder / f"annotations_{split}.json",
            "images": folder / "images",
        }
        for split in ("dev", "val", "test")
    }
    build_questions_table("scenes", splits, out, out.with_name("skipped.parquet"))
    return pl.read_parquet(out)


def test_a_larger_dev_changes_nothing_but_dev(tmp_path):
    for name, dev in (("small", 2), ("large", 5)):
        write_dataset("scenes", tmp_path / name, SCENES | {"images": SCENES["images"] | {"dev": dev}})
    small, large = (
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("small", "large")
    )
    assert len(large) == len(small) + 3
    changed = {path.name for path in small if small[path] != large[path]}
    assert changed - {RECORD} == {"questions_dev.json", "annotations_dev.json"}
    asked = [json.loads(files[Path("questions_dev.json")])["questions"] for files in (small, large)]
    assert asked[1][: len(asked[0])] == asked[0]


def test_the_official_reader_reads_what_was_written(folder, tmp_path):
    table = _table(folder / "scenes", tmp_path / "scenes.parquet")
    assert Counter(table["split"].to_list()) == {"dev": 20, "val": 10, "test": 15}
    assert table["answers"].list.len().to_list() == [10] * len(table)
    assert set(table["question_kind"]) <= set(KINDS)
    assert all(Path(path).is_file() for path in table["image"])
    by_split = table.group_by("split").agg(pl.col("image_id").unique())["image_id"].to_list()
    assert sum(len(ids) for ids in by_split) == table["image_id"].n_unique()


def test_vizwiz_records_carry_what_the_published_ones_do(folder):
    records = json.loads((folder / "multimodal" / "annotations_test.json").read_text())
    assert isinstance(records, list) and len(records) == 8
    for record in records:
        assert {"image", "question", "answers", "answer_type", "answerable"} <= set(record)
        assert all(set(answer) == {"answer", "answer_confidence"} for answer in record["answers"])
        top = majority([answer["answer"] for answer in record["answers"]])
        assert record["answerable"] == int(top != UNANSWERABLE)


def test_captions_are_in_the_sharegpt4v_format_and_of_train_images(folder):
    records = json.loads((folder / "scenes" / "captions.json").read_text())
    assert [turn["from"] for turn in records[0]["conversations"]] == ["human", "gpt"]
    assert records[0]["conversations"][0]["value"].startswith("<image>\n")
    evaluated = {
        question["image"]
        for split in ("dev", "val", "test")
        for question in json.loads((folder / "scenes" / f"questions_{split}.json").read_text())["questions"]
    }
    assert not evaluated & {record["image"] for record in records}


def test_people_s_captions_are_of_the_pictures_of_the_scenes(folder, tmp_path):
    images = {"dev": 2, "val": 1, "test": 2}
    write_dataset("scenes-captions", tmp_path / "captions", {"images": images, "captions": 3, "seed": 5})
    splits = {
        split: {
            "format": "scene_captions",
            "annotations": tmp_path / "captions" / f"captions_{split}.json",
            "images": tmp_path / "captions" / "images",
        }
        for split in images
    }
    check = load_task("scene_captioning").check_references
    paths = [tmp_path / name for name in ("captions.parquet", "skipped.parquet")]
    build_questions_table("scenes-captions", splits, *paths, check_references=check)
    table = pl.read_parquet(paths[0])
    assert dict(table.group_by("split").len().iter_rows()) == images
    assert set(table["question"]) == {INSTRUCTION} and set(table["answers"].list.len()) == {CAPTIONERS}
    for path in table["image"]:
        assert Path(path).read_bytes() == (folder / "scenes" / "images" / Path(path).name).read_bytes()
    calibration = json.loads((tmp_path / "captions" / "captions.json").read_text())
    assert len(calibration) == 3 and calibration[0]["conversations"][0]["value"] == f"<image>\n{INSTRUCTION}"
    assert not {record["image"] for record in calibration} & {Path(path).name for path in table["image"]}


SMALL = {
    "scenes": SCENES,
    "scenes-captions": {"images": {"dev": 1, "val": 1, "test": 1}, "captions": 1, "seed": 5},
    "scenes-retrieval": {"images": {"val": 2, "test": 2}, "captions_per_image": 2, "captions": 1, "seed": 5},
    "scenes-language-candidates": {"images": 1, "questions_per_image": 2, "seed": 5},
    "scenes-multimodal": {"images": 1, "seed": 5},
}


@pytest.mark.parametrize("name", written_datasets())
def test_the_files_of_an_embedded_dataset_are_where_its_entry_says_and_in_that_format(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("data/embedded") / name
    folder.parent.mkdir(parents=True)
    write_dataset(name, folder, SMALL[name])
    splits = official_files({"datasets": {name: {"format": "embedded", **SMALL[name]}}}, name)
    images = SMALL[name]["images"]
    assert list(splits) == (list(images) if isinstance(images, dict) else ["test"])
    for files in splits.values():
        assert load_format(files["format"]).read(files_of(files))


def test_every_kind_of_question_is_asked_and_answered():
    kinds = Counter()
    for split in ("test", "language"):
        for scene in generate(split, 60, 8, 2):
            kinds.update(question.kind for question in scene.questions)
            for question in scene.questions:
                assert question.answer(scene.truth)
    assert set(kinds) == set(KINDS) | set(RARE_KINDS)


def test_the_language_shift_asks_what_training_hardly_asks():
    train = [q for scene in generate("train", 150, 6, 2) for q in scene.questions]
    shift = [q for scene in generate("language", 60, 6, 2) for q in scene.questions]
    rare = [sum(q.kind in RARE_KINDS for q in questions) / len(questions) for questions in (train, shift)]
    assert rare[0] < 0.03 and rare[1] > 0.35
    seen = {q.text for q in train}
    assert np.mean([q.text in seen for q in shift]) < 0.05


def _scene(reading: dict[str, float], hue: float | None = 0.0, hidden: float = 0.0) -> Scene:
    from quantrust.embedded.scenes import SYMBOLS, Degradation

    item = Item(1, 1, "3", 0, hue, 0.0, 1.0, (0.0, 0.0), hidden, tuple(reading.get(s, 0.0) for s in SYMBOLS))
    return Scene((item,), (0.1, 0.0, 0.0), (), Degradation(), 0)


def test_annotators_disagree_where_the_picture_is_ambiguous_and_only_there():
    def readings(scene: Scene) -> Counter:
        return Counter(perceive(scene, np.random.default_rng(k))[0].symbol for k in range(300))

    assert readings(_scene({"3": 1.0}))["3"] >= 298
    smudged = readings(_scene({"3": 0.6, "8": 0.4}))
    assert set(smudged) >= {"3", "8"} and 0.1 < smudged["8"] / 300 < 0.5

    def colours(hue: float) -> Counter:
        return Counter(perceive(_scene({"3": 1.0}, hue), np.random.default_rng(k))[0].colour for k in range(300))

    assert set(colours(120.0)) == {"green"}
    teal = colours(171.0)
    assert set(teal) == {"green", "blue"} and min(teal.values()) > 60


def test_an_annotator_sees_the_same_scene_for_every_question():
    scene = next(generate("test", 1, 6, 3))
    assert scene.annotator(4) == scene.annotator(4)
    assert len({scene.annotator(k) for k in range(10)}) >= 1
    answers = scene.answers()
    assert answers == [[q.answer(scene.annotator(k)) for k in range(10)] for q in scene.questions]


def test_colour_words_meet_between_their_typical_hues():
    assert [name_colour(hue) for hue in (0, 350, 32, 120, 222, 275, 325, None)] == [
        "red", "red", "orange", "green", "blue", "purple", "pink", "white",
    ]  # fmt: skip
    assert name_colour(171.0, shift=-10) == "green" and name_colour(171.0, shift=10) == "blue"


def test_questions_about_one_scene_worked_out_by_hand():
    truth = (
        Percept("3", "red", True, 0, 0, 8, 8),
        Percept("circle", "blue", True, 0, 3, 8, 56),
        Percept("8", "blue", True, 3, 0, 56, 8),
    )
    expected = {
        "what color is the 3?": "red",
        "what digit is blue?": "8",
        "how many digits are there?": "2",
        "where is the 8?": "bottom left",
        "is the 3 left of the circle?": "yes",
        "is the red digit larger than the blue digit?": "no",
        "what is the red digit plus the blue digit?": "11",
        "what is the largest digit?": "8",
        "do the circle and the 8 have the same color?": "yes",
        "what is in the top right corner?": "circle",
        "is the red digit even?": "no",
        "are there more digits than shapes?": "yes",
        "how many digits are even?": "1",
        "what color is the smallest digit?": "red",
    }
    rng, found = np.random.default_rng(0), {}
    for _ in range(2500):
        for question in ask(truth, rng, 4, rare=0.3):
            found[question.text] = question.answer(truth)
    assert {text: found[text] for text in expected} == expected
    assert caption(truth) == "a red 3 at the top left, a blue circle at the top right, a blue 8 at the bottom left."


def test_people_who_missed_the_referent_say_so_in_the_multimodal_shift():
    unanswerable = [a for scene in generate("multimodal", 150, 1, 4) for a in scene.answers()[0]].count(UNANSWERABLE)
    assert 0.10 < unanswerable / 1500 < 0.30


def test_adversarial_selection_keeps_the_stated_share(folder, tmp_path):
    questions = json.loads((folder / "candidates" / "questions_test.json").read_text())["questions"]
    qualities = {str(q["question_id"]): float(k % 3 == 0) for k, q in enumerate(questions)}
    select_adversarial(folder / "candidates", qualities, tmp_path / "kept", questions=10, wrong_share=0.6, seed=1)
    kept = json.loads((tmp_path / "kept" / "questions_test.json").read_text())["questions"]
    assert len(kept) == 10 and sum(qualities[str(q["question_id"])] == 0 for q in kept) == 6
    assert {p.name for p in (tmp_path / "kept" / "images").iterdir()} == {q["image"] for q in kept}
    with pytest.raises(QuantrustError, match="raise the number of candidate images"):
        select_adversarial(folder / "candidates", qualities, tmp_path / "x", questions=24, wrong_share=0.9, seed=1)
    assert not (tmp_path / "x").exists()


def test_true_percepts_take_the_most_likely_reading():
    assert true_percepts(_scene({"3": 0.3, "8": 0.7}))[0].symbol == "8"


def test_most_unanswerable_questions_are_so_because_the_picture_is_spoilt():
    scenes = list(generate("multimodal", 250, 1, 4))
    unanswerable = [s for s in scenes if majority(s.answers()[0]) == UNANSWERABLE]
    absent = [s for s in unanswerable if s.questions[0].kind == "absent"]
    spoilt = [
        s
        for s in unanswerable
        if s.scene.degradation.severity > ILLEGIBLE or max(map(abs, s.scene.degradation.shift)) > SIZE / 2
    ]
    assert 0.10 < len(unanswerable) / len(scenes) < 0.22
    assert len(absent) < len(spoilt)


def test_pictures_in_distribution_are_never_so_degraded_that_people_see_nothing():
    for split in ("train", "test"):
        assert all(s.scene.degradation.severity < ILLEGIBLE for s in generate(split, 200, 1, 0))
