"""`quantrust serve` under load: 500 requests from 16 clients, against what the bundle says to each question alone.

One request in twenty is malformed, some clients hang up, and the server is told to stop in the middle of a second load.
Prints throughput, time to a reply, memory, and how many replies were wrong.

    python benchmarks/load_serve.py [BUNDLE] [--risk 0.2] [--batch-size 8]

Without a bundle, one of the embedded Qwen2-VL at 8 bits is made, with operating points that are made up.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from bundled_study import make_study, write
from quantrust.bundle.load import Bundle
from serving.load import CLIENTS, Outcome, put_under_load, questions_to_a_bundle
from serving.served import serving_bundle

MODEL = Path(__file__).parents[1] / "resources" / "models" / "qwen2-vl-tiny"
WARM, COUNT, QUESTIONS = 200, 500, 100


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--risk", type=float, default=0.2)
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        bundle = arguments.bundle or write(make_study(folder, MODEL), folder / "bundle")
        asked = questions_to_a_bundle(Bundle.load(bundle), QUESTIONS, arguments.risk)
        with serving_bundle(folder, bundle, "--batch-size", str(arguments.batch_size)) as server:
            outcome = put_under_load(server, asked, WARM, COUNT)
    report(outcome)
    return 0 if is_right(outcome) else 1


def is_right(outcome: Outcome):
    """Return whether every accepted request was answered once, and none wrongly."""
    wrong = sum(len(part.wrong) for part in (outcome.first, outcome.whole, outcome.last))
    return not wrong and outcome.accepted == outcome.replied == outcome.came_back + outcome.hung_up


def report(outcome: Outcome):
    """Print the figures."""
    whole = outcome.whole
    low, high = np.percentile(whole.seconds, [50, 95])
    print(f"{COUNT} requests from {CLIENTS} clients: {outcome.seconds:.1f} s, {COUNT / outcome.seconds:.0f} a second")
    print(f"time to a reply: median {1000 * low:.0f} ms, 95 % within {1000 * high:.0f} ms")
    print(f"statuses: {dict(whole.statuses)}; wrong: {len(whole.wrong)}; furthest confidence: {whole.furthest:.1e}")
    print(
        f"resident memory: {outcome.warm_bytes / 2**20:.0f} MiB after {WARM} requests, {outcome.end_bytes / 2**20:.0f}"
    )
    print(
        f"stopped in the middle: {outcome.accepted} accepted in all, {outcome.came_back} replies came back, "
        f"{outcome.hung_up} clients had hung up; exit code {outcome.exit_code}"
    )


if __name__ == "__main__":
    sys.exit(main())
