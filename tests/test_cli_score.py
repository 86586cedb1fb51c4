import csv
import dataclasses
import errno
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from quantrust.cli import main
from quantrust.tasks.cider import cider_d
from quantrust.tasks.task import load_task

# The soft accuracy of "yes" by how many of the ten references say so.
MATCHES = {0.0: 0, 0.3: 1, 0.6: 2, 0.9: 3, 1.0: 10}


@pytest.fixture
def files(tmp_path):
    """Write questions and annotations whose answer "yes" has the given soft accuracies, two questions an image."""

    def write(accuracies):
        questions, annotations = [], []
        for index, accuracy in enumerate(accuracies):
            references = ["yes"] * MATCHES[accuracy] + ["no"] * (10 - MATCHES[accuracy])
            answers = [
                {"answer": answer, "answer_confidence": "yes", "answer_id": position + 1}
                for position, answer in enumerate(references)
            ]
            ids = {"question_id": 100 + index, "image_id": index // 2}
            questions.append({**ids, "question": "Is it?"})
            annotations.append({**ids, "answers": answers, "answer_type": "yes/no", "question_type": "is it"})
        (tmp_path / "q.json").write_text(json.dumps({"questions": questions}))
        (tmp_path / "a.json").write_text(json.dumps({"annotations": annotations}))
        return tmp_path

    return write


def predict(path, confidences, first=100, **changes):
    """Write predictions of "yes" from question `first` on, with changes to records by their position."""
    records = [
        {"question_id": first + index, "answer": "yes", "confidence": confidence}
        for index, confidence in enumerate(confidences)
    ]
    for position, change in changes.items():
        records[int(position[1:])].update(change)
    path.write_text(json.dumps(records))


def score(folder, *options):
    return main(
        [
            "score",
            *("--questions", str(folder / "q.json"), "--annotations", str(folder / "a.json")),
            *("--predictions", str(folder / "p.json")),
            *map(str, options),
        ]
    )


def scored(folder, *options):
    assert score(folder, "--json", folder / "out.json", "--resamples", 20, *options) == 0
    return json.loads((folder / "out.json").read_text())


def test_five_answers_worked_out_by_hand(files):
    folder = files([1.0, 1.0, 0.0, 0.6, 0.3])
    predict(folder / "p.json", [0.9, 0.8, 0.7, 0.6, 0.5])
    out = scored(folder, "--risks", 0.1, 0.35, "--costs", 1)
    assert out["questions"] == 5
    assert out["images"] == 3
    assert out["accuracy"] == pytest.approx(2.9 / 5)
    # Risks 0 0 1 .4 .7, running means 0 0 1/3 .35 .42.
    assert out["aurc"] == pytest.approx((0 / 2 + 0 + 1 / 3 + 0.35 + 0.42 / 2) / 5)
    assert out["coverage_at_risk"] == {
        "0.1": {"coverage": 0.4, "threshold": 0.8},
        "0.35": {"coverage": 0.8, "threshold": 0.6},
    }
    # Ideal order 0 0 .4 .7 1: running means 0 0 .4/3 .275 .42.
    assert out["e_aurc"] == pytest.approx(out["aurc"] - (0.4 / 3 + 0.275 + 0.21) / 5)
    # Right are the answers with a >= .5; of 3 x 2 pairs (.6 after the wrong one) one is the wrong way round.
    assert out["auroc"] == pytest.approx(5 / 6)
    gaps = [0.9 - 1, 0.8 - 1, 0.7 - 0, 0.6 - 0.6, 0.5 - 0.3]
    assert out["brier"] == pytest.approx(sum(gap**2 for gap in gaps) / 5)
    assert out["ece"] == pytest.approx(sum(map(abs, gaps)) / 5)
    assert out["ece_mass"] == pytest.approx(out["ece"])
    phi = out["effective_reliability"]["1"]
    assert phi["phi_without_abstention"] == pytest.approx((1 + 1 - 1 + 0.6 + 0.3) / 5)
    assert phi["best_phi"] == pytest.approx(2.9 / 5)
    assert [phi[key] for key in ("phi", "threshold", "coverage", "risk")] == [None] * 4
    assert "deployed" not in out


def test_thresholds_come_from_the_threshold_predictions(files):
    folder = files([1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    predict(folder / "p.json", [0.9, 0.8, 0.7])
    predict(folder / "v.json", [0.95, 0.6, 0.5], first=103)
    out = scored(folder, "--threshold-predictions", folder / "v.json", "--costs", 1, 0.5, 100, "--risks", 0.1)
    assert out["questions"] == 3
    # On V running sums at cost 1 are 1 0 1: among equals the lowest threshold. At cost 100 only .95 pays.
    assert out["effective_reliability"]["1"] == pytest.approx(
        {
            "phi": 1 / 3,
            "threshold": 0.5,
            "coverage": 1,
            "risk": 1 / 3,
            "phi_without_abstention": 1 / 3,
            "best_phi": 2 / 3,
        }
    )
    assert out["effective_reliability"]["0.5"]["threshold"] == 0.5
    hundred = out["effective_reliability"]["100"]
    assert (hundred["threshold"], hundred["phi"], hundred["coverage"], hundred["risk"]) == (0.95, 0.0, 0.0, None)
    assert out["deployed"]["0.1"] == {"threshold": 0.95, "coverage": 0.0, "risk": None}
    assert out["coverage_at_risk"]["0.1"] == {"coverage": pytest.approx(1 / 3), "threshold": 0.9}


def test_no_threshold_that_pays_abstains_on_everything(files):
    folder = files([1.0, 1.0, 0.0, 0.0])
    predict(folder / "p.json", [0.9, 0.8])
    predict(folder / "v.json", [0.95, 0.6], first=102)
    out = scored(folder, "--threshold-predictions", folder / "v.json", "--costs", 10)
    phi = out["effective_reliability"]["10"]
    assert (phi["threshold"], phi["phi"], phi["coverage"], phi["risk"]) == (None, 0.0, 0.0, None)


def test_confidences_that_are_no_probabilities_have_no_calibration_error(files):
    folder = files([1.0, 0.0])
    predict(folder / "p.json", [-1, -2])
    out = scored(folder)
    assert [out["ece"], out["ece_mass"], out["brier"]] == [None] * 3
    assert out["intervals"]["ece"] is None
    assert out["auroc"] == 1.0


def test_what_is_taken_for_scores_is_said_with_file_and_question(files, capsys):
    folder = files([1.0, 0.0, 1.0])
    predict(folder / "p.json", [0.9, 1.7, -2])
    assert scored(folder)["confidence"] == "score"
    printed = capsys.readouterr()
    assert 'p.json: question 101: "confidence" 1.7 and 1 more are outside [0, 1]' in printed.err
    assert "taken as scores that only rank answers, without ece, ece_mass, brier" in printed.err
    assert "ece, ece_mass, brier are undefined: the confidences are scores, not probabilities" in printed.out


def test_confidences_declared_as_scores_have_no_calibration_error_and_need_no_note(files, capsys):
    folder = files([1.0, 0.0, 1.0])
    for confidences in ([0.9, 0.7, 0.2], [2.9, 1.7, 0.2]):
        predict(folder / "p.json", confidences)
        out = scored(folder, "--confidence", "score")
        assert (out["confidence"], out["ece"], out["brier"]) == ("score", None, None)
        assert out["auroc"] == 0.5
        printed = capsys.readouterr()
        assert printed.err == ""
        assert "are scores, not probabilities" in printed.out


def test_confidences_declared_as_probabilities_are_refused_outside_zero_and_one(files, capsys):
    folder = files([1.0, 0.0, 1.0])
    declared = ("--confidence", "probability")
    predict(folder / "p.json", [0.9, 1.7, 0.2])
    fails(folder, capsys, *declared, names=["p.json: question 101", "1.7 is outside [0, 1]", "--kind score"])
    predict(folder / "p.json", [0.9, 0.7])
    predict(folder / "v.json", [-0.2], first=102)
    options = ["--threshold-predictions", folder / "v.json", *declared]
    fails(folder, capsys, *options, names=["v.json: question 102", "-0.2 is outside [0, 1]"])
    predict(folder / "v.json", [1.0], first=102)
    assert scored(folder, *options)["confidence"] == "probability"
    assert capsys.readouterr().err == ""


def test_thresholds_on_the_terminal_and_in_json_answer_what_was_computed(files, capsys):
    """On a confident model six digits of every threshold are 1.00000, which answers nothing."""
    folder = files([1.0] * 3 + [0.0] + [1.0] * 2 + [0.0] * 2)
    confidences = [1 - 1e-9, 1 - 3e-7, 0.99999951, 0.9999995, 0.2]
    predict(folder / "p.json", confidences)
    predict(folder / "v.json", [1 - 3.5e-7, 0.9999996, 0.99999951], first=105)
    out = scored(folder, "--threshold-predictions", folder / "v.json", "--risks", 0.01, "--costs", 10)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    printed = {words[0]: words[2] for words in lines if "threshold" in words[0] and len(words) == 3}
    kept = {
        "threshold_at_risk": (out["coverage_at_risk"]["0.01"]["threshold"], 3),
        "deployed_threshold": (out["deployed"]["0.01"]["threshold"], 2),
        "effective_reliability_threshold": (out["effective_reliability"]["10"]["threshold"], 2),
    }
    assert printed.keys() == kept.keys()
    for name, (threshold, answered) in kept.items():
        assert float(printed[name]) == threshold
        assert sum(confidence >= threshold for confidence in confidences) == answered, name


def test_a_confidence_that_is_no_probability_among_the_threshold_predictions_counts_too(files):
    folder = files([1.0, 0.0, 1.0])
    predict(folder / "p.json", [0.9, 0.2])
    predict(folder / "v.json", [1.5], first=102)
    out = scored(folder, "--threshold-predictions", folder / "v.json")
    assert [out["ece"], out["ece_mass"], out["brier"]] == [None] * 3
    assert scored(folder, "--subset")["brier"] == pytest.approx((0.1**2 + 0.2**2) / 2)


def test_resamples_on_which_a_metric_is_undefined_are_counted(files):
    folder = files([1.0, 1.0, 0.0, 0.0])
    predict(folder / "p.json", [0.9, 0.8, 0.7, 0.6])
    intervals = scored(folder)["intervals"]
    # Two images, one right and one wrong: about half of the resamples draw one of them twice.
    assert 0 < intervals["undefined_resamples"]["auroc"] < 20
    assert intervals["undefined_resamples"]["accuracy"] == 0
    assert intervals["undefined_resamples"]["coverage_at_risk"]["0.1"] == {"coverage": 0, "threshold": None}


def test_intervals_contain_the_value_and_depend_on_nothing_but_the_seed(files):
    folder = files([1.0, 0.6, 0.0, 0.3, 1.0, 1.0] * 20)
    predict(folder / "p.json", [0.5 + 0.004 * index for index in range(120)])
    first, again, other = scored(folder), scored(folder), scored(folder, "--seed", 1)
    assert first == again
    assert first["intervals"]["accuracy"] != other["intervals"]["accuracy"]
    low, high = first["intervals"]["accuracy"]
    assert low < first["accuracy"] < high
    assert first["intervals"]["resamples"] == 20


def test_per_question_output(files):
    folder = files([1.0, 0.3])
    predict(folder / "p.json", [0.25, 0.125])
    assert score(folder, "--per-question", folder / "out.csv", "--resamples", 0) == 0
    with open(folder / "out.csv", newline="") as handle:
        assert list(csv.reader(handle)) == [
            ["question_id", "quality", "confidence"],
            ["100", "1.0", "0.25"],
            ["101", "0.3", "0.125"],
        ]


def test_the_table_shows_every_metric(files, capsys):
    folder = files([1.0, 0.3])
    predict(folder / "p.json", [0.25, 0.125])
    assert score(folder, "--risks", 0.01, "--costs", 10, "--resamples", 10) == 0
    out = capsys.readouterr().out
    assert "2 questions on 1 images" in out
    assert "accuracy" in out
    assert "65.00 %" in out
    assert "coverage_at_risk 0.01" in out
    assert "effective_reliability_best 10" in out
    assert "--threshold-predictions" not in out


def test_the_table_says_where_thresholds_came_from(files, capsys):
    folder = files([1.0, 0.3, 1.0])
    predict(folder / "p.json", [0.25, 0.125])
    predict(folder / "v.json", [0.5], first=102)
    assert score(folder, "--threshold-predictions", folder / "v.json", "--resamples", 2) == 0
    assert "thresholds from --threshold-predictions" in capsys.readouterr().out


def test_the_default_risks_and_costs(files):
    folder = files([1.0, 0.3])
    predict(folder / "p.json", [0.25, 0.125])
    out = scored(folder)
    assert list(out["coverage_at_risk"]) == ["0.005", "0.01", "0.05", "0.1", "0.2"]
    assert list(out["effective_reliability"]) == ["1", "10", "100"]


def test_vizwiz_names_questions_by_image_file(tmp_path):
    answers = [{"answer": "yes", "answer_confidence": "yes"}] * 10
    records = [
        {"image": f"VizWiz_val_{i:08d}.jpg", "question": "?", "answers": answers, "answerable": 1} for i in range(3)
    ]
    (tmp_path / "a.json").write_text(json.dumps(records))
    (tmp_path / "q.json").write_text(json.dumps([{"image": r["image"], "question": "?"} for r in records]))
    names = [
        {"image": "VizWiz_val_00000000.jpg"},
        {"question_id": "VizWiz_val_00000001.jpg"},
        {"question_id": "VizWiz_val_00000002"},
    ]
    said = ["yes", "no", "yes"]
    predictions = [{**name, "answer": answer, "confidence": 0.5} for name, answer in zip(names, said, strict=True)]
    (tmp_path / "p.json").write_text(json.dumps(predictions))
    assert scored(tmp_path)["accuracy"] == pytest.approx(2 / 3)


def test_a_name_without_suffix_that_two_images_share_is_ambiguous(tmp_path, capsys):
    answers = [{"answer": "yes", "answer_confidence": "yes"}] * 10
    records = [{"image": name, "question": "?", "answers": answers} for name in ("X.jpg", "X.png")]
    for name in ("q.json", "a.json"):
        (tmp_path / name).write_text(json.dumps(records))
    predictions = [{"image": name, "answer": "yes", "confidence": 0.5} for name in ("X", "X.png")]
    (tmp_path / "p.json").write_text(json.dumps(predictions))
    fails(tmp_path, capsys, names=["p.json", "question X:", "X.jpg or X.png"])
    (tmp_path / "p.json").write_text(json.dumps([{**predictions[0], "image": "X.jpg"}, predictions[1]]))
    assert scored(tmp_path)["questions"] == 2


def test_a_subset_may_be_scored_if_asked_for(files):
    folder = files([1.0, 0.3])
    predict(folder / "p.json", [0.25])
    assert score(folder) == 2
    assert scored(folder, "--subset")["accuracy"] == 1.0


def test_threshold_images_among_the_reported_ones_are_noted(files, capsys):
    folder = files([1.0, 0.3])
    predict(folder / "p.json", [0.25])
    predict(folder / "v.json", [0.25], first=101)
    scored(folder, "--threshold-predictions", folder / "v.json")
    assert "note: 1 image has questions in both" in capsys.readouterr().err


def fails(folder, capsys, *options, names):
    """Check that scoring ends in exit code 2, one line that holds all `names`, and no file."""
    before = {path.name for path in folder.iterdir()}
    outputs = ["--json", folder / "out.json", "--per-question", folder / "out.csv"]
    assert score(folder, *outputs, "--resamples", 5, *options) == 2
    assert {path.name for path in folder.iterdir()} == before
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    for name in names:
        assert name in captured.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"question_id": 999}, ["question 999", "not among the questions"]),
        ({"question_id": 100}, ["question 100", "twice"]),
        ({"confidence": math.nan}, ["question 101", "nan"]),
        ({"confidence": math.inf}, ["question 101", "inf"]),
        ({"confidence": None}, ["question 101", "None"]),
        ({"confidence": "0.5"}, ["question 101", "'0.5'"]),
        ({"confidence": True}, ["question 101", "True"]),
        ({"confidence": 10**400}, ["question 101", "finite"]),
        ({"answer": None}, ["question 101", '"answer"']),
        ({"answer": ["yes"]}, ["question 101", '"answer"']),
    ],
)
def test_a_bad_prediction_is_named(files, capsys, change, words):
    folder = files([1.0, 0.3])
    predict(folder / "p.json", [0.25, 0.125], _1=change)
    fails(folder, capsys, names=["p.json", *words])


def test_an_absent_confidence_is_named(files, capsys):
    folder = files([1.0])
    (folder / "p.json").write_text(json.dumps([{"question_id": 100, "answer": "yes"}]))
    fails(folder, capsys, names=["p.json", "question 100", '"confidence"'])


def test_a_missing_prediction_is_named(files, capsys):
    folder = files([1.0, 0.3, 0.0])
    predict(folder / "p.json", [0.25])
    fails(folder, capsys, names=["p.json", "question 101"])
    predict(folder / "v.json", [0.25], first=101)
    fails(folder, capsys, "--threshold-predictions", folder / "v.json", names=["p.json", "question 102", "v.json"])


@pytest.mark.parametrize("subset", [[], ["--subset"]])
def test_a_question_in_both_predictions_is_named(files, capsys, subset):
    folder = files([1.0, 0.3])
    predict(folder / "p.json", [0.25, 0.5])
    predict(folder / "v.json", [0.25], first=101)
    options = ["--threshold-predictions", folder / "v.json", *subset]
    fails(folder, capsys, *options, names=["v.json", "question 101", "p.json"])


def test_a_bad_threshold_prediction_is_named(files, capsys):
    folder = files([1.0, 0.3])
    predict(folder / "p.json", [0.25])
    predict(folder / "v.json", [math.nan], first=101)
    fails(folder, capsys, "--threshold-predictions", folder / "v.json", names=["v.json", "question 101"])


def test_a_question_without_references_is_named(files, capsys):
    folder = files([1.0, 0.3])
    predict(folder / "p.json", [0.25, 0.5])
    document = json.loads((folder / "a.json").read_text())
    document["annotations"][1]["answers"] = []
    (folder / "a.json").write_text(json.dumps(document))
    fails(folder, capsys, names=["a.json", "question 101", "reference answers", "none"])


def test_any_number_of_references_is_scored_and_a_difference_is_noted(files, capsys):
    folder = files([1.0, 0.3])
    predict(folder / "p.json", [0.25, 0.5])
    document = json.loads((folder / "a.json").read_text())
    document["annotations"][1]["answers"] = [{"answer": answer} for answer in ("yes", "no", "no", "no")]
    (folder / "a.json").write_text(json.dumps(document))
    # One of four matches: 0 and thrice 1/3, over four.
    assert scored(folder)["accuracy"] == pytest.approx((1 + 1 / 4) / 2)
    assert "a.json: questions have different numbers of reference answers: 10 (1 " in capsys.readouterr().err


def score_one_file(tmp_path, content, answers, *options):
    """Score answers to the questions of a file that has the references as well; return what is written and printed."""
    (tmp_path / "a.json").write_text(json.dumps(content))
    records = [{"question_id": key, "answer": answer, "confidence": 0.5} for key, answer in answers.items()]
    (tmp_path / "p.json").write_text(json.dumps(records))
    files = ["--annotations", tmp_path / "a.json", "--predictions", tmp_path / "p.json", "--json", tmp_path / "o.json"]
    code = main(["score", *map(str, files), "--resamples", "0", *map(str, options)])
    return code, json.loads((tmp_path / "o.json").read_text()) if code == 0 else None


GQA = {
    "1": {"imageId": "n1", "question": "Is it?", "answer": "yes"},
    "2": {"imageId": "n1", "question": "How many?", "answer": "two"},
    "3": {"imageId": "n2", "question": "What is it?", "answer": "table"},
}
CHOICES = [
    {"question_id": "1", "image": "a.jpg", "question": "What?", "choices": ["a cup", "a plate"], "answer": 0},
    {"question_id": "2", "image": "b.jpg", "question": "What?", "choices": ["a cup", "a plate"], "answer": 1},
]


def test_gqa_is_scored_by_exact_match(tmp_path, capsys):
    code, out = score_one_file(tmp_path, GQA, {"1": "no", "2": "2", "3": "The table."})
    assert code == 0
    assert (out["format"], out["accuracy"], out["questions"], out["images"]) == ("gqa", 2 / 3, 3, 2)
    assert "judged by accuracy, the answers being to questions in the format gqa" in capsys.readouterr().out


def test_multiple_choice_is_scored_by_its_letters(tmp_path):
    _, out = score_one_file(tmp_path, CHOICES, {"1": "a", "2": "a plate"})
    assert (out["format"], out["accuracy"]) == ("multiple_choice", 0.5)


def captions(*of_images):
    images = [{"id": k, "file_name": f"{k}.jpg"} for k in range(len(of_images))]
    told = [{"image_id": k, "caption": caption} for k, several in enumerate(of_images) for caption in several]
    return {"images": images, "annotations": told}


def test_captions_are_scored_as_shares_of_what_people_reach_and_by_cider_d_as_a_whole(tmp_path, capsys):
    people = [["a red bus here", "a red bus there"], ["one black cat sits", "the black cat sits"]]
    code, out = score_one_file(tmp_path, captions(*people), {"0": "a red bus here", "1": "a dog"})
    assert code == 0
    assert (out["format"], out["accuracy"], out["questions"]) == ("coco_captions", 0.5, 2)
    assert out["cider_d"] == pytest.approx(cider_d(["a red bus here", "a dog"], people))
    shown = capsys.readouterr().out
    assert "judged by share of people's CIDEr-D" in shown and re.search(r"cider_d +\d", shown)


def test_a_picture_with_one_caption_is_named(tmp_path, capsys):
    assert score_one_file(tmp_path, captions(["a bus", "the bus"], ["a cat"]), {"0": "a", "1": "a"})[0] != 0
    assert "a.json: question 1: expected two reference captions or more, got 1" in capsys.readouterr().err


def test_a_stated_format_is_the_one_that_is_read(tmp_path, capsys):
    code, _ = score_one_file(tmp_path, GQA, {"1": "no"}, "--format", "multiple_choice")
    assert code != 0
    assert "a.json: expected a list of objects, got dict" in capsys.readouterr().err
    code, _ = score_one_file(tmp_path, {"annotations": []}, {"1": "no"})
    assert code != 0
    assert "a.json: is in the format vqav2, which has the questions in a file of their own" in capsys.readouterr().err


def test_a_reference_that_cannot_be_judged_by_is_named(tmp_path, capsys):
    code, _ = score_one_file(tmp_path, GQA | {"4": GQA["3"] | {"answer": "?!"}}, {"1": "no"}, "--subset")
    assert code != 0
    assert (
        "a.json: question 4: the reference answer is '?!', and normalisation leaves nothing of it"
        in capsys.readouterr().err
    )


def test_figures_of_all_answers_together_are_written_where_a_task_has_them(tmp_path, capsys, monkeypatch):
    def of_one_word(references):
        # Of the answers that are scored, no others.
        assert [len(one) for one in references] == [1, 1]
        return lambda answer, own: float(" " not in answer)

    task = dataclasses.replace(load_task("exact_match"), corpus_metrics={"one_word": of_one_word})
    monkeypatch.setattr("quantrust.commands.score.task_of_format", lambda name: task)
    _, out = score_one_file(tmp_path, GQA, {"1": "no", "3": "a table"}, "--subset")
    assert out["one_word"] == 0.5
    assert re.search(r"^one_word +50\.00 %$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("name", ["q.json", "a.json", "p.json"])
def test_truncated_json_is_named(files, capsys, name):
    folder = files([1.0, 0.3])
    predict(folder / "p.json", [0.25, 0.5])
    text = (folder / name).read_text()
    (folder / name).write_text(text[: len(text) // 2])
    fails(folder, capsys, names=[name, "JSON"])


@pytest.mark.parametrize("name", ["q.json", "a.json", "p.json"])
def test_a_missing_file_is_named(files, capsys, name):
    folder = files([1.0, 0.3])
    predict(folder / "p.json", [0.25, 0.5])
    (folder / name).unlink()
    fails(folder, capsys, names=[name, "no such file"])


@pytest.mark.parametrize(("text", "word"), [("{}", "list"), ("[]", "no predictions"), ("[1]", "entry 1")])
def test_a_file_that_holds_no_predictions_is_named(files, capsys, text, word):
    folder = files([1.0, 0.3])
    (folder / "p.json").write_text(text)
    fails(folder, capsys, names=["p.json", word])


def test_an_output_that_cannot_be_written_is_named_before_any_work(files, capsys):
    folder = files([1.0])
    predict(folder / "p.json", [0.25])
    (folder / "out.csv").mkdir()
    assert score(folder, "--json", folder / "out.json", "--per-question", folder / "out.csv") == 2
    assert "out.csv" in capsys.readouterr().err
    assert not (folder / "out.json").exists()


def everything(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("table", "document", "named"),
    [
        ("out", "out", "out"),
        ("new/../out", "out", "out"),
        ("out/nested", "out", "out"),
        ("out", "out/nested", "out"),
        ("q.json/out", None, "q.json"),
        ("new/q.json/../../q.json", None, "q.json"),
        ("new/folder/" + "x" * 300, None, "xxx"),
        ("x" * 256, None, "xxx"),
        ("x" * 300 + "/out", None, "xxx"),
        ("new/a\0b", None, "x00b"),
        ("new/\ud800", None, "ud800"),
        ("/proc/o.json", None, "/proc/o.json"),
        ("/proc/new/o.json", None, "/proc/new/o.json"),
        ("/dev/null", None, "/dev/null"),
        ("q.json", None, "q.json"),
        ("./a.json", None, "a.json"),
        ("p.json", None, "p.json"),
        ("v.json", None, "v.json"),
        ("link.json", None, "link.json"),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_an_impossible_output_is_named_and_leaves_nothing_behind(files, capsys, table, document, named, swapped):
    folder = files([1.0, 1.0])
    predict(folder / "p.json", [0.25])
    predict(folder / "v.json", [0.25], first=101)
    (folder / "link.json").symlink_to("p.json")
    before = everything(folder)
    paths = [None if name is None else str(folder / name) for name in (table, document)]
    outputs = zip(("--json", "--per-question"), paths[::-1] if swapped else paths, strict=True)
    options = [text for option, path in outputs if path is not None for text in (option, path)]
    assert score(folder, *options, "--threshold-predictions", folder / "v.json", "--resamples", 2) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert named in captured.err
    assert everything(folder) == before


def test_a_disk_that_fills_up_is_named_and_leaves_nothing_behind(files, capsys, monkeypatch):
    folder = files([1.0])
    predict(folder / "p.json", [0.25])
    before = everything(folder)

    def full(path, text, **how):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    assert score(folder, "--json", folder / "new/out.json", "--per-question", folder / "new/out.csv") == 2
    message = capsys.readouterr().err
    assert "new/out.json: the disk has no room for it" in message and "No space left on device" in message
    assert everything(folder) == before


def test_outputs_may_lie_in_new_folders_and_replace_older_ones(files):
    folder = files([1.0])
    predict(folder / "p.json", [0.25])
    options = ["--json", folder / "new/one/out.json", "--per-question", folder / "new/two/out.csv", "--resamples", 2]
    assert score(folder, *options) == 0
    before = everything(folder)
    assert folder / "new/two/out.csv" in before
    assert score(folder, *options) == 0
    assert everything(folder) == before


@pytest.mark.parametrize("name", ["q.json", "a.json", "p.json"])
def test_a_lone_surrogate_in_a_name_is_named(tmp_path, capsys, name):
    answers = [{"answer": "yes", "answer_confidence": "yes"}] * 10
    records = {
        "q.json": {"image": "x.jpg", "question": "?"},
        "a.json": {"image": "x.jpg", "question": "?", "answers": answers},
        "p.json": {"image": "x.jpg", "answer": "yes", "confidence": 0.5},
    }
    records[name]["image"] = "\ud800.jpg"
    for file, record in records.items():
        (tmp_path / file).write_text(json.dumps([record]))
    fails(tmp_path, capsys, names=[name, r"\ud800.jpg", "lone surrogate"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--risks", "1.5"], "1.5 is outside [0, 1]"),
        (["--risks", "nan"], "nan is outside [0, 1]"),
        (["--risks", "abc"], "'abc' is not a number from 0 to 1"),
        (["--costs", "-1"], "-1 is outside [0, 1e+12]"),
        (["--costs", "inf"], "inf is outside"),
        (["--costs", "1e308"], "1e308 is outside [0, 1e+12]"),
        (["--costs", "abc"], "'abc' is not a number from 0 to 1e+12"),
        (["--resamples", "-1"], "-1 is negative"),
        (["--resamples", "1000000000"], "more than 1,000,000 resamples would not end soon; expected fewer"),
        (["--resamples", "1.5"], "'1.5' is not a whole number from 0 on"),
        (["--risks"], "expected at least one argument"),
    ],
)
def test_impossible_options_are_refused(files, capsys, options, words):
    folder = files([1.0])
    predict(folder / "p.json", [0.25])
    with pytest.raises(SystemExit) as stopped:
        score(folder, *options)
    assert stopped.value.code == 2
    assert f"argument {options[0]}: {words}" in capsys.readouterr().err


def test_the_largest_cost_is_counted_exactly(files):
    folder = files([1.0, 0.0])
    predict(folder / "p.json", [0.25, 0.125])
    out = scored(folder, "--costs", "1e12")
    assert out["effective_reliability"]["1000000000000"]["phi_without_abstention"] == (1 - 1e12) / 2


def test_scoring_imports_no_torch(files):
    folder = files([1.0, 0.3])
    predict(folder / "p.json", [0.25, 0.5])
    arguments = ["score", "--questions", "q.json", "--annotations", "a.json", "--predictions", "p.json"]
    program = (
        f"import sys; from quantrust.cli import main; code = main({arguments}); "
        "sys.exit(code or 10 * ('torch' in sys.modules or 'transformers' in sys.modules))"
    )
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
