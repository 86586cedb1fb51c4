"""`quantrust score` on tables of scores: the numbers of official files, from any kind of table, or one message."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from quantrust.cli import main
from quantrust.evaluation.metrics import aurc, coverage_at_risk, rank
from quantrust.evaluation.resampling import Resampler, draw_images

N = 240


def answers(seed: int = 0) -> pl.DataFrame:
    """Answers to two questions an image, a third of them in split val; yes/no questions are easier."""
    rng = np.random.default_rng(seed)
    index = np.arange(N)
    easy = index % 3 == 0
    quality = rng.choice([0, 0.6, 1.0], p=[0.3, 0.1, 0.6], size=N)
    quality = np.where(easy, 1.0, quality)
    return pl.DataFrame(
        {
            "id": index,
            "quality": quality,
            "confidence": np.clip(0.4 * quality + 0.6 * rng.random(N), 0, 1),
            "image": [f"image {place // 2}" for place in index],
            "group": np.where(easy, "yes/no", "other"),
            "split": np.where(index < N // 3, "val", "test"),
        }
    )


def write(table: pl.DataFrame, path: Path) -> Path:
    if path.suffix == ".csv":
        table.write_csv(path)
    elif path.suffix == ".jsonl":
        table.write_ndjson(path)
    else:
        table.write_parquet(path)
    return path


def scored(path: Path, *options: object) -> dict:
    out = path.with_name("out.json")
    assert main(["score", str(path), "--json", str(out), "--resamples", "60", *map(str, options)]) == 0
    return json.loads(out.read_text())


def test_a_table_has_the_metrics_of_the_metrics_module(tmp_path, capsys):
    out = scored(write(answers(), tmp_path / "t.csv"), "--risks", 0.1, "--costs", 1, "--seed", 3)
    val, test = (answers().filter(pl.col("split") == name) for name in ("val", "test"))
    ranking = rank(test["quality"], test["confidence"])
    threshold = coverage_at_risk(rank(val["quality"], val["confidence"]), 0.1).threshold
    assert (out["format"], out["questions"], out["images"], out["confidence"]) == ("table", 160, 80, "probability")
    assert out["aurc"] == pytest.approx(aurc(ranking))
    assert out["deployed"]["0.1"]["threshold"] == threshold
    kept = test.filter(pl.col("confidence") >= threshold)
    assert out["deployed"]["0.1"]["coverage"] == pytest.approx(kept.height / test.height)
    assert out["deployed"]["0.1"]["risk"] == pytest.approx(1 - kept["quality"].mean())
    draws = draw_images(test["image"].to_numpy(), 60, 3)
    resampled = Resampler(test["quality"].to_numpy(), draws).evaluate(ranking, [], [], None, True)["aurc", None]
    assert out["intervals"]["aurc"] == pytest.approx(np.quantile(resampled, [0.025, 0.975]).tolist())
    assert "use thresholds from split val" in capsys.readouterr().out


def test_the_same_table_gives_the_same_bytes_whatever_file_it_is_in(tmp_path, capsys):
    found = []
    for suffix in (".csv", ".jsonl", ".parquet"):
        folder = tmp_path / suffix[1:]
        folder.mkdir()
        scored(write(answers(), folder / f"t{suffix}"), "--per-question", folder / "each.csv")
        printed = capsys.readouterr()
        found.append(((folder / "out.json").read_bytes(), (folder / "each.csv").read_bytes(), printed.out, printed.err))
    assert found[0] == found[1] == found[2]


def test_official_files_and_a_table_of_their_qualities_have_the_same_numbers(tmp_path):
    references = [{"answer": "yes", "answer_confidence": "yes", "answer_id": place} for place in range(1, 11)]
    ids = [{"question_id": place, "image_id": place // 2} for place in range(20)]
    questions = [{**one, "question": "Is it?"} for one in ids]
    annotations = [{**one, "answers": references, "answer_type": "yes/no", "question_type": "is"} for one in ids]
    predictions = [
        {"question_id": place, "answer": "no" if place % 3 == 0 else "yes", "confidence": (7 * place % 20) / 20}
        for place in range(20)
    ]
    for name, content in (("q", {"questions": questions}), ("a", {"annotations": annotations}), ("p", predictions)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    files = [word for name in "qap" for word in (OPTIONS[name], str(tmp_path / f"{name}.json"))]
    assert main(["score", *files, "--resamples", "60", "--json", str(tmp_path / "official.json")]) == 0
    table = pl.DataFrame(
        {
            "id": [one["question_id"] for one in ids],
            "correct": [one["answer"] == "yes" for one in predictions],
            "confidence": [one["confidence"] for one in predictions],
            "image": [one["image_id"] for one in ids],
        }
    )
    out = scored(write(table, tmp_path / "t.jsonl"))
    official = json.loads((tmp_path / "official.json").read_text())
    assert {**official, "format": "table"} == out


OPTIONS = {"q": "--questions", "a": "--annotations", "p": "--predictions"}


def test_each_group_is_reported_as_a_table_of_its_answers_alone(tmp_path, capsys):
    whole = scored(write(answers().drop("split"), tmp_path / "t.csv"))
    printed = capsys.readouterr().out
    assert list(whole["groups"]) == ["other", "yes/no"]
    alone = answers().drop("split", "group").filter(answers()["group"] == "yes/no")
    assert whole["groups"]["yes/no"] == {
        key: value for key, value in scored(write(alone, tmp_path / "one.csv")).items() if key != "format"
    }
    assert re.search(r"^yes/no +80  accuracy +100\.00 %  100\.00 \.\. 100\.00$", printed, re.MULTILINE)


def test_without_images_every_answer_counts_alone_and_the_command_says_so(tmp_path, capsys):
    out = scored(write(answers().drop("image", "split"), tmp_path / "t.csv"))
    assert out["images"] == N
    assert "no column of images: every answer counts as one about an image of its own" in capsys.readouterr().out


def test_thresholds_may_come_from_another_table(tmp_path, capsys):
    test, val = (answers(seed).drop("split", "group") for seed in (0, 1))
    val = val.with_columns(id=pl.col("id") + N, image="other " + pl.col("image"))
    other = write(val, tmp_path / "val.parquet")
    out = scored(write(test, tmp_path / "t.csv"), "--threshold-predictions", other, "--risks", 0.1)
    expected = coverage_at_risk(rank(val["quality"], val["confidence"]), 0.1).threshold
    assert out["deployed"]["0.1"]["threshold"] == expected
    assert main(["score", str(tmp_path / "t.csv"), "--threshold-predictions", str(tmp_path / "t.csv")]) == 2
    assert "answer 0: is also in" in capsys.readouterr().err


def test_scores_of_a_study_are_a_table_with_an_estimator_as_confidence(tmp_path, capsys):
    names = {"id": "question_id", "image": "image_id", "quality": "quality", "confidence": "maxprob"}
    one = answers().drop("group").rename(names).with_columns(pl.col("question_id").cast(pl.String))
    shift = one.filter(pl.col("split") == "test")
    study = pl.concat([one.with_columns(dataset=pl.lit("id")), shift.with_columns(dataset=pl.lit("shift"))])
    path = write(study, tmp_path / "s.parquet")
    plain = scored(write(answers().drop("group"), tmp_path / "t.csv"))
    assert {**scored(path), "format": "table"} == plain
    assert "answers to id; confidence: the column maxprob" in capsys.readouterr().out
    assert scored(path, "--dataset", "shift", "--confidence", "quality")["auroc"] == 1.0
    assert main(["score", str(path), "--dataset", "other"]) == 2
    assert "no dataset 'other'; expected one of 'id', 'shift' in --dataset" in capsys.readouterr().err


def test_a_log_says_where_its_confidence_comes_from(tmp_path, capsys):
    samples = [
        {
            "doc_id": place,
            "target": "0",
            "filtered_resps": [["-1.0", "True"], ["-2.0", "False"]],
            "acc": 1.0,
            "input": "",
        }
        for place in range(3)
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({**sample, "arguments": ARGUMENTS}) + "\n" for sample in samples))
    assert scored(path)["format"] == "lm_eval"
    assert "quality: the metric acc; confidence: softmax of the choices' log-likelihoods" in capsys.readouterr().out


ARGUMENTS = {f"gen_args_{place}": {"arg_0": "?", "arg_1": f" {place}"} for place in range(2)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--annotations", "a.json"], "--annotations belongs to official files; expected it without the table"),
        (["--format", "gqa"], "--format gqa is one of official files; a table has lm_eval, lmms_eval, scores, table"),
        (["--test", "dev"], "t.csv: no answers in split dev, only in val, test; expected one of these in --test"),
        (["--test", "val"], "--test and --val are both val"),
        (["--threshold-predictions", "v.csv"], "t.csv: has the split val itself"),
        (["--group", "id"], "t.csv: has 160 groups; expected at most 100"),
        (
            ["--id", "name"],
            "t.csv: has no column 'name', only 'id', 'quality', 'confidence', 'image', 'group', 'split'",
        ),
        (["--kind", "probability", "--confidence", "id"], "t.csv: question 80: confidence 80.0 and 237 more are"),
        (["--json", "t.csv"], "t.csv: is also read, as"),
    ],
)
def test_what_does_not_fit_a_table_gets_one_message_and_writes_nothing(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    write(answers(), tmp_path / "t.csv")
    before = (tmp_path / "t.csv").read_bytes()
    assert main(["score", "t.csv", "--per-question", "each.csv", *options]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {message}")
    assert printed.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
    assert (tmp_path / "t.csv").read_bytes() == before


def test_official_files_are_asked_for_where_there_is_no_table(capsys):
    assert main(["score"]) == 2
    assert "expected a table of scores, or --annotations beside the other official files" in capsys.readouterr().err
    assert main(["score", "--annotations", "a", "--predictions", "p", "--confidence", "column"]) == 2
    assert "--confidence column: expected one of probability, score" in capsys.readouterr().err


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Two tables of answers to the same questions, of which the second is worse and in another order."""
    worse = answers().with_columns(quality=pl.when(pl.col("id") % 4 == 1).then(0.0).otherwise("quality"))
    shuffled = worse.sample(fraction=1, shuffle=True, seed=1)
    return write(answers(), tmp_path / "a.csv"), write(shuffled, tmp_path / "b.jsonl")


def compared(paths: tuple[Path, Path], *options: object) -> pl.DataFrame:
    out = paths[0].with_name("out.csv")
    assert main(["compare", *map(str, paths), "--resamples", "99", "--out", str(out), *map(str, options)]) == 0
    return pl.read_csv(out)


def test_two_tables_are_compared_as_a_study_compares_its_scores(two, tmp_path, capsys):
    table = compared(two, "--risk", 0.2)
    assert "thresholds from split val; 99 resamples" in capsys.readouterr().out
    names = {"id": "question_id", "image": "image_id", "quality": "quality", "confidence": "maxprob"}
    study = []
    for path in two:
        rows = pl.read_csv(path) if path.suffix == ".csv" else pl.read_ndjson(path)
        rows = rows.rename(names).with_columns(pl.col("question_id").cast(pl.String), dataset=pl.lit("table"))
        study.append(write(rows, tmp_path / f"{path.stem}-study.parquet"))
    expected = compared((study[0], study[1]), "--risk", 0.2)
    for name in ("metric", "a", "b", "difference", "n"):
        assert table[name].to_list() == pytest.approx(expected[name].to_list())
    # The images are drawn from another seed.
    assert table["low"].to_list() == pytest.approx(expected["low"].to_list(), abs=0.1)


def test_tables_without_splits_are_compared_without_thresholds(two, tmp_path, capsys):
    plain = [write(answers().drop("split").filter(pl.col("id") < 99), tmp_path / f"{name}.csv") for name in "cd"]
    table = compared((plain[0], plain[1]))
    assert not table["metric"].str.starts_with("deployed").any()
    assert "accuracy" not in table["metric"].to_list()
    assert "without thresholds, which take a split for them" in capsys.readouterr().out


def test_what_does_not_fit_two_tables_is_named(two, tmp_path, capsys):
    fewer = write(answers().filter(pl.col("id") != 200), tmp_path / "c.csv")
    for options, message in (
        ((str(two[0]), str(fewer)), "a.csv: answer 200 is not in"),
        ((*map(str, two), "--estimator", "maxprob"), "is a table, in which --confidence names the confidences"),
        ((*map(str, two), "--plot", "out.gif"), "expected --plot with a name that ends in .pdf, .png or .svg"),
    ):
        assert main(["compare", *options]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("form", ["pdf", "png", "svg"])
def test_a_figure_has_the_same_bytes_each_time(two, tmp_path, form):
    found = []
    for name in ("one", "two"):
        plot = tmp_path / f"{name}.{form}"
        assert main(["compare", *map(str, two), "--resamples", "20", "--plot", str(plot)]) == 0
        found.append(plot.read_bytes())
    assert found[0] == found[1]


def test_a_figure_of_scores_that_are_no_probabilities_has_no_reliability_diagram(tmp_path):
    rows = answers().with_columns(confidence=10 * pl.col("confidence"))
    for name, table, panels in (("p", answers(), 2), ("s", rows, 1)):
        path = write(table, tmp_path / f"{name}.csv")
        plot = tmp_path / f"{name}.svg"
        assert main(["score", str(path), "--resamples", "20", "--plot", str(plot)]) == 0
        assert plot.read_text().count('<g id="axes_') == panels
