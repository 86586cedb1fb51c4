"""The table over checkpoints: its numbers on tables made by hand, and errors inside on a real small model."""

import json
import shutil
import sys

import polars as pl
import pytest

import compare_methods as compare
from quantrust.artifacts.tables import write_table
from quantrust.quantization.calibration_samples import build_calibration_table
from quantrust.quantization.quantize import quantize_model

MODEL, DATASET = "model-a", "scenes"
SCHEMES = ("bf16", "rtn-w2g32-full", "rtn-w8g32-full")


@pytest.fixture(scope="module")
def data(tmp_path_factory, model_folders, pictures):
    """The folders of a finished study that are read: one model, three schemes; answers and metrics made by hand."""
    data = tmp_path_factory.mktemp("data")
    images = data / "embedded" / DATASET / "images"
    images.mkdir(parents=True)
    records = []
    for number, picture in enumerate(pictures):
        picture.save(images / f"{number}.png")
        turns = [{"from": "human", "value": "<image>\nwhat is there?"}]
        turns += [{"from": "gpt", "value": "a red circle is below the 3 and a blue 7 stands top left"}]
        records.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    captions = images.parent / "captions.json"
    captions.write_text(json.dumps(records))
    model = shutil.copytree(model_folders["qwen2_vl"], data / "models" / MODEL)
    (data / "calibration").mkdir()
    table = build_calibration_table(model, captions, images, samples=3, seed=0)
    write_table(table, data / "calibration" / f"{MODEL}.parquet")
    for place, scheme in enumerate(SCHEMES):
        quantize_model(model, scheme, None, data / "checkpoints" / MODEL / scheme)
        write_results(data, scheme, ["no"] * place + ["yes"] * (4 - place), [3.0, 4.0 + 2 * place])
    return data


def write_results(data, scheme, answers, state):
    """Write features of four test questions and one of another split, and metrics with rows that are not asked for."""
    features = data / "features" / MODEL / scheme / f"{DATASET}.parquet"
    features.parent.mkdir(parents=True)
    questions = {"question_id": ["1", "2", "3", "4", "5"], "split": [*["test"] * 4, "val"]}
    states = pl.Series([[*state]] * 4 + [[100.0, 100.0]], dtype=pl.Array(pl.Float32, 2))
    write_table(pl.DataFrame(questions | {"answer": [*answers, "maybe"], "answer_state": states}), features)
    rows = [
        # estimator, metric, parameter, id_share, dataset, value
        ("maxprob", "accuracy", None, 1.0, DATASET, 0.75),
        ("maxprob", "coverage_at_risk", 0.05, 1.0, DATASET, 0.5),
        ("maxprob", "coverage_at_risk", 0.01, 1.0, DATASET, 0.1),
        ("maxprob", "coverage_at_risk", 0.05, 0.5, DATASET, 0.2),
        ("selector", "coverage_at_risk", 0.05, 1.0, DATASET, 0.3),
    ]
    columns = ["estimator", "metric", "parameter", "id_share", "dataset", "value"]
    path = data / "metrics" / MODEL / f"{scheme}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pl.DataFrame(rows, schema=columns, orient="row"), path)


def test_pairs_calibrated_nothing(data):
    calibrated = set(pl.read_parquet(data / "calibration" / f"{MODEL}.parquet")["image"])
    pairs = compare.held_out_pairs(data, MODEL, DATASET, 3)
    assert len(pairs) == 3 and not calibrated & set(pairs["image"])


def test_the_table(data, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare_methods.py", MODEL, "--data", str(data), "--samples", "3"])
    compare.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{MODEL}, 3 held-out pairs, {DATASET}/test"
    rows = {cells[0]: cells[1:] for line in lines[4:] for cells in [[cell.strip() for cell in line.split("|")[1:-1]]]}
    assert list(rows) == sorted(SCHEMES)
    # bf16's states are (3, 4) of length 5; the others are off by 2 and 4 in one of them
    inside = (("0.000", "1.000"), ("0.400", "0.750"), ("0.800", "0.500"))
    assert [row[3:] for row in rows.values()] == [[*pair, "0.750", "0.500"] for pair in inside]
    # 8 and 2 bits, and two numbers of 32 and 16 bits for each 32 weights
    assert [row[0] for row in rows.values()] == ["16.00", "3.00", "10.00"]
    assert rows["bf16"][1:3] == ["0.000", "0.000"]
    two, eight = ([float(cell) for cell in rows[scheme][1:3]] for scheme in SCHEMES[1:])
    assert all(0 < fine < coarse for fine, coarse in zip(eight, two, strict=True))
