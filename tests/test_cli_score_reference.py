"""`quantrust score` against its definitions written out plainly, one answer at a time, on drawn answers."""

import json
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantrust.cli import main

RISKS, COSTS = (0.0, 0.1, 0.35, 1.0), (0.0, 0.5, 10.0)
TENTHS = {0: 0, 3: 1, 6: 2, 9: 3, 10: 10}
"""Ten times the soft accuracy of "yes", by how many of the ten references say so: its values."""
# Ties, the edges of bins, and values next to 1 and to one another.
PROBABILITIES = [*(place / 15 for place in range(16)), 0.25, 0.3, 1 - 3e-7, 1 - 2.9e-7, 1 - 1.2e-16, 1.5e-8, 5e-324]
SCORES = [-3.5, -1.5e-8, 1.0000000000000002, 1.7, 12345678.9, 12345678.91]


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[tuple[int, float]], list[tuple[int, float]]]:
    """Draw tenths and confidences of the answers to report on, and of those to set thresholds on, which may be none."""
    drawn = st.floats(0, 1, allow_subnormal=False)
    pool = st.sampled_from(PROBABILITIES) | drawn
    if draw(st.booleans()):
        pool |= st.sampled_from(SCORES)
    one = st.tuples(st.sampled_from(sorted(TENTHS)), pool)
    return draw(st.lists(one, min_size=1, max_size=40)), draw(st.lists(one, max_size=25))


Answers = list[tuple[Fraction, float]]


def risk_of(chosen: Answers) -> Fraction | None:
    return 1 - sum(a for a, _ in chosen) / Fraction(len(chosen)) if chosen else None


def kept(given: Answers, threshold: float | None) -> Answers:
    return [] if threshold is None else [(a, c) for a, c in given if c >= threshold]


def curve(given: Answers) -> list[Fraction]:
    """Return the mean risk of the first 1 to n answers, each counting as the mean of those of equal confidence."""
    ordered = sorted(given, key=lambda one: -one[1])
    risks = [risk_of([(b, d) for b, d in given if d == c]) for _, c in ordered]
    return [sum(risks[:count]) / count for count in range(1, len(risks) + 1)]


def area(heights: list[Fraction], width: Fraction) -> Fraction:
    return sum(((one + other) / 2 * width for one, other in pairwise(heights)), Fraction(0))


def aurc(given: Answers) -> Fraction | None:
    return area(curve(given), Fraction(1, len(given))) if len(given) > 1 else None


def within(given: Answers, limit: float) -> float | None:
    """Return the lowest threshold that keeps a risk limit."""
    fit = [c for _, c in given if risk_of(kept(given, c)) <= Fraction(str(limit))]
    return min(fit, default=None)


def phi(given: Answers, threshold: float | None, cost: float) -> Fraction:
    gains = [a if a > 0 else -Fraction(str(cost)) for a, _ in kept(given, threshold)]
    return sum(gains, Fraction(0)) / len(given)


def best_threshold(given: Answers, cost: float) -> float | None:
    """Return the lowest of the thresholds with the largest Phi; none where abstaining is better than all."""
    worth = {c: phi(given, c, cost) for _, c in given}
    best = max(worth.values())
    return min(c for c, value in worth.items() if value == best) if best >= 0 else None


def auroc(given: Answers) -> Fraction | None:
    right = [c for a, c in given if a >= Fraction(1, 2)]
    wrong = [c for a, c in given if a < Fraction(1, 2)]
    if not (right and wrong):
        return None
    points = sum(Fraction((c > d) * 2 + (c == d), 2) for c in right for d in wrong)
    return points / (len(right) * len(wrong))


def ece(given: Answers) -> Fraction:
    gaps = [Fraction(0)] * 15
    for a, c in given:
        # The first bin whose upper edge, which belongs to it, is not below the confidence.
        place = next(place for place in range(15) if c <= (place + 1) / 15)
        gaps[place] += Fraction(c) - a
    return sum(map(abs, gaps)) / len(given)


def ece_mass(given: Answers) -> Fraction:
    ascending = sorted(given, key=lambda one: one[1])
    gaps = [Fraction(c) - (1 - risk_of([(b, d) for b, d in given if d == c])) for _, c in ascending]
    size, larger = divmod(len(gaps), 15)
    total, start = Fraction(0), 0
    for place in range(15):
        end = start + size + (place < larger)
        total += abs(sum(gaps[start:end], Fraction(0)))
        start = end
    return total / len(gaps)


def brier(given: Answers) -> Fraction:
    return sum((Fraction(c) - a) ** 2 for a, c in given) / len(given)


def under(given: Answers, threshold: float | None) -> dict[str, object]:
    chosen = kept(given, threshold)
    return {"threshold": threshold, "coverage": Fraction(len(chosen), len(given)), "risk": risk_of(chosen)}


def reference(test: Answers, val: Answers) -> dict[str, object]:
    """Return what `score --json` holds, by the definitions."""
    probabilities = all(0 <= c <= 1 for _, c in (*test, *val))
    calibration: dict[str, Callable[[Answers], Fraction]] = {"ece": ece, "ece_mass": ece_mass, "brier": brier}
    ideal = aurc([(a, float(a)) for a, _ in test])
    generalised = [Fraction(0), *(risk * count / len(test) for count, risk in enumerate(curve(test), start=1))]
    expected: dict[str, object] = {
        "questions": len(test),
        "confidence": "probability" if probabilities else "score",
        "accuracy": 1 - risk_of(test),
        "aurc": aurc(test),
        "e_aurc": None if ideal is None else aurc(test) - ideal,
        "augrc": area(generalised, Fraction(1, len(test))),
        "auroc": auroc(test),
        **{name: metric(test) if probabilities else None for name, metric in calibration.items()},
        "coverage_at_risk": {
            risk: {key: under(test, within(test, risk))[key] for key in ("coverage", "threshold")} for risk in RISKS
        },
        "effective_reliability": {
            cost: {"phi_without_abstention": phi(test, min(c for _, c in test), cost), "best_phi": 1 - risk_of(test)}
            | ({"phi": None, "threshold": None, "coverage": None, "risk": None})
            for cost in COSTS
        },
    }
    if val:
        expected["deployed"] = {risk: under(test, within(val, risk)) for risk in RISKS}
        for cost, figures in expected["effective_reliability"].items():
            threshold = best_threshold(val, cost)
            figures |= under(test, threshold) | {"phi": phi(test, threshold, cost)}
    return expected


def leaves(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            name = key if isinstance(key, str) else f"{key:g}"
            yield from leaves(inner, (*path, name))
    else:
        yield path, value


def scored(test: list[tuple[int, float]], val: list[tuple[int, float]]) -> dict[str, object]:
    """Run the command on files with these answers, and return its JSON."""
    questions, annotations, predictions = [], [], []
    for index, (tenths, confidence) in enumerate((*test, *val)):
        ids = {"question_id": index, "image_id": index}
        said = ["yes"] * TENTHS[tenths] + ["no"] * (10 - TENTHS[tenths])
        references = [{"answer": answer, "answer_confidence": "yes", "answer_id": j} for j, answer in enumerate(said)]
        questions.append({**ids, "question": "Is it?"})
        annotations.append({**ids, "answers": references, "answer_type": "yes/no", "question_type": "is it"})
        predictions.append({"question_id": index, "answer": "yes", "confidence": confidence})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {"questions": {"questions": questions}, "annotations": {"annotations": annotations}}
        files["predictions"] = predictions[: len(test)]
        if val:
            files["threshold-predictions"] = predictions[len(test) :]
        arguments = ["score", "--resamples", "0", "--json", str(folder / "out.json")]
        for option, content in files.items():
            (folder / f"{option}.json").write_text(json.dumps(content))
            arguments += [f"--{option}", str(folder / f"{option}.json")]
        arguments += ["--risks", *map(str, RISKS), "--costs", *map(str, COSTS)]
        assert main(arguments) == 0
        return json.loads((folder / "out.json").read_text())


@given(answers())
def test_score_is_what_its_definitions_say(drawn: tuple[list[tuple[int, float]], list[tuple[int, float]]]) -> None:
    test, val = drawn
    found = dict(leaves(scored(test, val)))
    exact = [[(Fraction(tenths, 10), confidence) for tenths, confidence in part] for part in (test, val)]
    expected = dict(leaves(reference(*exact)))
    assert found.keys() == expected.keys() | {("images",), ("format",)}
    assert found["format",] == "vqav2"
    for path, value in expected.items():
        if path[-1] in ("threshold", "confidence") or value is None:
            # A threshold is one of the confidences, to the bit.
            assert found[path] == value, path
        else:
            assert found[path] == pytest.approx(float(value), rel=1e-9, abs=1e-12), path
