"""`quantrust recalibrate` and `quantrust recheck` on a bundle of a small random model."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bundled_study import Study, make_study, write
from quantrust.bundle.load import Bundle
from quantrust.bundle.record import read_bundle
from quantrust.cli import main
from quantrust.commands.sample import task_for
from quantrust.errors import QuantrustError

IMAGES = 30


@pytest.fixture(scope="module")
def study(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("study"), model_folders["qwen2_vl"])


@pytest.fixture(scope="module")
def folder(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle; not to be changed."""
    return write(study, tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="module")
def items(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of two questions about each image, which the model answers rightly but for one image in ten."""
    where = tmp_path_factory.mktemp("items")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(IMAGES):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(where / f"{number}.png")
        rows += [{"image": f"{number}.png", "question": question} for question in ("is it?", "top?")]
    bundle = Bundle.load(folder)
    found = list(bundle.answer_many((where / row["image"], row["question"]) for row in rows))
    for place, (row, one) in enumerate(zip(rows, found, strict=True)):
        row["answers"] = ["something else" if place // 2 % 10 == 0 else one.answer]
    path = where / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_certificates_take_is_said_before_anything_is_loaded(folder, items, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Bundle, "load", lambda *_, **__: pytest.fail("the model was loaded"))
    arguments = ["recalibrate", str(folder), "--items", str(items), "--out", str(tmp_path / "new"), "--dry-run"]
    assert main([*arguments, "--risk", "0.2", "--risk", "0.01"]) == 0
    said = capsys.readouterr().out
    assert "60 questions about 30 images. 9 images set thresholds, and one question about each of the other 21" in said
    # ln(0.05) / ln(1 - R), rounded up.
    assert [line.split()[:2] for line in said.splitlines()[3:5]] == [["0.2", "14"], ["0.01", "299"]]
    assert "more than there are" in said
    assert "thresholds are set on 9 images: where they lie is chance at 0.2 (takes 16 images)" in said
    assert not (tmp_path / "new").exists()


def test_a_recalibrated_bundle_has_the_thresholds_of_the_sample(folder, items, tmp_path, capsys):
    out = tmp_path / "new"
    assert main(["recalibrate", str(folder), "--items", str(items), "--out", str(out), "--risk", "0.3"]) == 0
    said = capsys.readouterr().out
    record = read_bundle(out)
    points = record.operating_points
    assert points.id_dataset == "labelled"
    assert points.conditions == read_bundle(folder).operating_points.conditions
    assert {point.risk_limit for point in record.points} == {0.3}
    assert [point.kind for point in record.points] == ["val", "certified"]
    for point in record.points:
        # The terminal has whole numbers, and so has the card.
        assert repr(point.threshold) in said
        assert repr(point.threshold) in (out / "README.md").read_text()
    certification = points.certification
    assert (certification.questions, certification.images, certification.dataset) == (21, 21, "labelled")
    assert "0.3 of the images sets thresholds" in certification.divided
    assert record.risk == 0.3
    answer = Bundle.load(out).answer(items.parent / "0.png", "is it?", risk=0.3)
    assert answer.certified
    assert answer.operating_point == record.points[1]


def test_answers_are_judged_as_in_the_study_and_never_as_answers_to_other_items(folder):
    record = read_bundle(folder)
    captions = dataclasses.replace(record, item="picture", quality="F1 of facts")
    assert [task_for(record, None), task_for(record, "exact_match"), task_for(captions, None)] == [
        *("vqa", "exact_match", "scene_captioning")
    ]
    with pytest.raises(QuantrustError, match=r"vqa judges answers to a question.*pictures; tasks of these: captioning"):
        task_for(captions, "vqa")
    with pytest.raises(QuantrustError, match="no task has taste as its quality; name one with --task"):
        task_for(dataclasses.replace(record, quality="taste"), None)


def test_a_bundle_is_replaced_as_a_whole_and_a_second_time(folder, items, tmp_path):
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    arguments = ["recalibrate", str(own), "--items", str(items), "--out", str(own), "--risk", "0.3"]
    assert main(arguments) == 0
    first = read_bundle(own)
    assert main([*arguments, "--seed", "1"]) == 0
    assert read_bundle(own).operating_points.certification.seed == 1
    assert first.operating_points.certification.seed == 0
    assert (own / "README.md").read_text().count("recalibrated on labelled") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_a_bundle_that_could_not_be_replaced_is_as_it_was(folder, items, tmp_path, monkeypatch, capsys):
    own = tmp_path / "own"
    shutil.copytree(folder, own)
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("quantrust.bundle.recalibrate.record_text", fail)
    arguments = ["recalibrate", str(own), "--items", str(items), "--out", str(own), "--risk", "0.3"]
    assert main(arguments) == 130
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--items", "none.jsonl"], "none.jsonl: no such file"),
        (["--items", "items.txt"], "is no table by its name"),
        (["--out", "full"], "holds other files and no bundle"),
        (["--set-share", "0.001"], "0 would set thresholds"),
    ],
)
def test_bad_input_is_one_message_and_writes_nothing(folder, items, tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    arguments = ["recalibrate", str(folder), "--items", str(items), "--out", "new"]
    assert main([*arguments, *change]) == 2
    said = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("error: ") for line in said) == 1
    assert message in said[-1]
    assert not (tmp_path / "new").exists()


def test_a_sample_without_right_answers_sets_nothing(folder, items, tmp_path, capsys):
    wrong = items.parent / "wrong.jsonl"
    rows = [json.loads(line) | {"answers": ["something else"]} for line in items.read_text().splitlines()[:8]]
    wrong.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["recalibrate", str(folder), "--items", str(wrong), "--out", str(tmp_path / "new")]) == 2
    assert "wrong: no threshold keeps any of the limits 0.2, 0.05 on this sample" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_under_the_same_conditions_nothing_changes(folder, items, tmp_path, capsys):
    out = tmp_path / "drift.json"
    main(["recheck", str(folder), "--items", str(items), "--json", str(out)])
    said = capsys.readouterr().out
    assert "conditions: as measured" in said
    assert "answers that changed: 0, 0.00 %" in said
    found = json.loads(out.read_text())
    assert (found["answers_changed"], found["largest_change"]) == (0, 0.0)
    assert [point["threshold"] for point in found["points"]] == [p.threshold for p in read_bundle(folder).points]


def test_another_dtype_moves_confidences_and_is_named(folder, items, tmp_path, capsys):
    out = tmp_path / "drift.json"
    main(["recheck", str(folder), "--items", str(items), "--dtype", "bfloat16", "--json", str(out)])
    found = json.loads(out.read_text())
    assert found["differences"] == ["dtype bfloat16 instead of float32"]
    # A random model is sure of nothing: its confidences are some millionths.
    assert found["largest_change"] > 1e-8
    assert any(point["changed"] for point in found["points"])
    assert all(point["verdict"] in ("holds", "broken", "not settled") for point in found["points"])
    assert "certified threshold" in capsys.readouterr().out


def test_answers_from_another_machine_are_the_reference(folder, items, tmp_path, capsys):
    rows = [json.loads(line) for line in items.read_text().splitlines()]
    reference = tmp_path / "measured.jsonl"
    lines = [{"id": f"line {place}", "answer": "x", "confidence": 0.5} for place in range(1, len(rows) + 1)]
    reference.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["recheck", str(folder), "--items", str(items), "--reference", str(reference)]
    main(arguments)
    assert f"answers that changed: {len(rows)}, 100.00 %" in capsys.readouterr().out
    reference.write_text(json.dumps(lines[0]) + "\n")
    assert main(arguments) == 2
    assert "has no answer to item line 2" in capsys.readouterr().err
