"""Operating points read back as they were written, and nothing else is read."""

import dataclasses
import json
import math

import pytest

from quantrust.errors import QuantrustError
from quantrust.evaluation.operating_points import (
    Certification,
    Conditions,
    Measured,
    OperatingPoint,
    OperatingPoints,
    Sought,
    points_from_record,
    points_record,
    read_operating_points,
    write_operating_points,
)

CONDITIONS = Conditions("cpu", "float32", "reference", "sdpa")
THRESHOLD = math.nextafter(1.0, 0.0)
MEASURED = Measured("scenes", "test", 4500, 750, 2000, 0.44, 0.42, 0.46, 0.04, 0.03, None, 0.95)
POINTS = OperatingPoints(
    "tiny",
    "hqq-w4g64",
    "ab" * 32,
    "scenes",
    CONDITIONS,
    (
        OperatingPoint("maxprob", 0.05, "val", THRESHOLD, None, "scenes", "val", 1680, 280, (MEASURED,)),
        OperatingPoint("maxprob", 0.05, "certified", 1 / 3, 0.1, "scenes", "test", 750, 750),
    ),
    Certification(
        *(0.1, 1, ("maxprob",), (0.1, 0.05), "scenes", "test", 750, 750, 0, "all certify"),
        (Sought("maxprob", 0.1, 0.05, 29, False), Sought("maxprob", 0.05, 0.1, 45, True)),
    ),
)


def test_what_is_written_reads_back_to_the_same_floats(tmp_path):
    write_operating_points(POINTS, tmp_path / "points.json")

    assert read_operating_points(tmp_path / "points.json") == POINTS
    assert read_operating_points(tmp_path / "points.json").points[0].threshold == THRESHOLD


def test_a_point_is_certified_by_its_kind():
    assert [point.certified for point in POINTS.points] == [False, True]


def test_points_are_found_by_estimator_and_limit():
    assert POINTS.points_for("maxprob", 0.05) == list(POINTS.points)
    assert POINTS.points_for("maxprob", 0.1) == POINTS.points_for("selector", 0.05) == []


def test_a_changed_threshold_is_noticed(tmp_path):
    path = tmp_path / "points.json"
    write_operating_points(POINTS, path)
    path.write_text(path.read_text().replace("0.333", "0.233"))

    with pytest.raises(QuantrustError, match="damaged"):
        read_operating_points(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 9}, "format 9"),
        ({"model": 7}, "model is 7, expected str"),
        ({"points": {}}, "points is {}, expected a list"),
        ({"certification": None}, "certified points but no certification"),
        ({"extra": 1}, "unknown entry 'extra'"),
        ({"conditions": {"device": "cpu"}}, "conditions lacks attention, dtype, kernel"),
        ({"points": [{**dataclasses.asdict(POINTS.points[1]), "delta": None}]}, "delta is None"),
        ({"points": [{**dataclasses.asdict(POINTS.points[0]), "threshold": math.nan}]}, "threshold is nan"),
        ({"points": [{**dataclasses.asdict(POINTS.points[0]), "threshold": True}]}, "threshold is True"),
        ({"points": [{**dataclasses.asdict(POINTS.points[0]), "risk_limit": 5}]}, "risk_limit is 5"),
        ({"points": [{**dataclasses.asdict(POINTS.points[0]), "kind": "guess"}]}, "kind is 'guess'"),
    ],
)
def test_a_record_with_a_fault_is_refused(change, message):
    record = json.loads(json.dumps(points_record(POINTS))) | change

    with pytest.raises(QuantrustError, match=message.replace("[", r"\[")):
        points_from_record(record, "points.json")


def test_conditions_are_read_from_the_notes_of_a_features_file():
    notes = {
        "settings": json.dumps({"dtype": "bfloat16", "kernel": "packed"}),
        "device": "cpu",
        "attention": "eager",
        "kernels": json.dumps({"int4": 12, "int4 in two planes": 1}),
    }

    assert Conditions.from_notes(notes) == Conditions("cpu", "bfloat16", "int4, int4 in two planes", "eager")
    assert Conditions.from_notes(notes | {"kernels": "{}"}).kernel == "none"


def test_differences_between_conditions_are_named():
    other = dataclasses.replace(CONDITIONS, dtype="bfloat16", kernel="int4")

    assert CONDITIONS.differences(other) == ["dtype bfloat16 instead of float32", "kernel int4 instead of reference"]
    assert CONDITIONS.differences(CONDITIONS) == []
