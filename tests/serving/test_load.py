"""Five hundred questions from sixteen clients: each that is accepted is answered once and rightly, in flat memory."""

from pathlib import Path

import pytest

from bundled_study import make_study, write
from quantrust.bundle.load import Bundle
from serving.load import Asked, Outcome, put_under_load, questions_to_a_bundle
from serving.served import POINTS, body, data_url, picture, rule, serving, serving_bundle

WARM, COUNT = 200, 500
RISK = 0.2
MOST_GROWTH = 24 << 20
"""Bytes of resident memory between the end of the first requests and the end of the last."""
MODEL = Path(__file__).parents[2] / "resources" / "models" / "qwen2-vl-tiny"

pytestmark = pytest.mark.slow


def check(outcome: Outcome) -> None:
    for part in (outcome.first, outcome.whole, outcome.last):
        assert part.wrong == []
    assert outcome.whole.statuses == {200: COUNT - COUNT // 20, 400: COUNT // 20}
    assert outcome.whole.unanswered == 0
    assert COUNT // 2 <= outcome.last.replies < COUNT
    assert outcome.exit_code == 0
    # what the server counts as accepted, and no more, came back to the clients
    assert outcome.accepted == outcome.replied == outcome.came_back + outcome.hung_up
    assert outcome.end_bytes - outcome.warm_bytes < MOST_GROWTH


def test_a_server_of_the_rule_under_load(tmp_path: Path) -> None:
    asked = []
    for number in range(60):
        image, question = picture(number, (200 + 20 * (number % 7), 300)), f"question {number}?"
        threshold = POINTS[RISK]["threshold"]
        asked.append(Asked(body(question, data_url(image), risk=RISK), *rule(image, question), threshold))
    with serving(tmp_path, pause=0.01) as server:
        check(put_under_load(server, asked, WARM, COUNT))
        log = server.log.read_text()
    assert " 500 " not in log and "Traceback" not in log


def test_a_server_of_a_bundle_under_load_gives_the_bundles_own_answers(tmp_path: Path) -> None:
    bundle = write(make_study(tmp_path, MODEL), tmp_path / "bundle")
    asked = questions_to_a_bundle(Bundle.load(bundle), 100, RISK)
    assert 0 < sum(one.confidence >= one.threshold for one in asked) < len(asked)
    with serving_bundle(tmp_path, bundle) as server:
        outcome = put_under_load(server, asked, WARM, COUNT)
    check(outcome)
    assert outcome.whole.near < len(asked) / 10
