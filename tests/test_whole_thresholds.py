"""A threshold is the same float wherever it is read, and is shown as a number that can be told from 1."""

import json
import math
from pathlib import Path

import polars as pl
import pytest

from quantrust.artifacts.tables import read_csv, read_table, write_csv, write_table
from quantrust.bundle.record import BundleRecord, record_text
from quantrust.commands.recalibrate import describe_found
from quantrust.evaluation.operating_points import (
    Certification,
    Conditions,
    Measured,
    OperatingPoint,
    OperatingPoints,
    points_from_record,
    read_operating_points,
    write_operating_points,
)
from quantrust.evaluation.own_sample import SampleSettings
from quantrust.inference.settings import DumpSettings
from quantrust.report.wording import threshold_in_words

THRESHOLDS = [1 - 3e-7, math.nextafter(1.0, 0.0), 1 - 1.7e-12, math.nextafter(0.95, 1.0), 1 / 3, 1.25e-7, 5e-324]


def points_of(threshold: float) -> OperatingPoints:
    measured = Measured("own", "certifying", 10, 10, 5, 0.5, 0.4, 0.6, 0.01, 0.0, 0.02, 0.95)
    point = OperatingPoint("maxprob", 0.05, "certified", threshold, 0.1, "own", "certifying", 10, 10, (measured,))
    certification = Certification(0.1, 1, ("maxprob",), (0.05,), "own", "certifying", 10, 10, 0, "all certify", ())
    conditions = Conditions("cpu", "float32", "none", "sdpa")
    return OperatingPoints("m", "s", "", "own", conditions, (point,), certification)


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_a_threshold_reads_back_whole_from_every_file_and_from_the_terminal(tmp_path: Path, threshold: float) -> None:
    table = pl.DataFrame({"threshold": [threshold]})
    write_table(table, tmp_path / "t.parquet")
    write_csv(table, tmp_path / "t.csv")
    points = points_of(threshold)
    write_operating_points(points, tmp_path / "points.json")
    bundle = record_text(BundleRecord("maxprob", 0.05, DumpSettings(), None, points, None, None), {})
    line = describe_found(points, SampleSettings("own", [0.05], 0.1, 0.3, 0)).splitlines()[1]
    read = [
        read_table(tmp_path / "t.parquet")["threshold"][0],
        read_csv(tmp_path / "t.csv")["threshold"][0],
        read_operating_points(tmp_path / "points.json").points[0].threshold,
        points_from_record(json.loads(bundle)["operating_points"], "bundle.json").points[0].threshold,
        float(line.split()[2]),
    ]
    assert read == [threshold] * 5


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_what_the_page_shows_is_not_1_and_answers_no_more(threshold: float) -> None:
    shown = threshold_in_words(threshold)
    head, _, distance = shown.partition(" - ")
    value = float(head) - float(distance or 0)
    assert shown not in ("1", "1.0")
    assert value >= threshold or math.isclose(value, threshold, rel_tol=1e-15)
