"""Power that pilots state, held against a simulated population: differences of two variants, and certificates.

Usage: PYTHONPATH=workflow/scripts python benchmarks/check_power.py [--pilots 200] [--parts differences certificates]
"""

import argparse

import polars as pl
from tqdm import tqdm

from quantrust.evaluation.power import Certifying
from quantrust.evaluation.power_simulation import Check, check_certification, check_differences

QUESTIONS = 500
"""Of a pilot; an image has three on average."""
PILOT_IMAGES = QUESTIONS // 3
DIFFERENCES = (100, 250, 600)
CERTIFICATES = {0.05: (400,), 0.1: (150, 400), 0.2: (100,)}


def main():
    """Run the parts and print a row for each question asked of the pilots."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pilots", type=int, default=200)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--parts", nargs="+", default=["differences", "certificates"])
    arguments = parser.parse_args()
    tables = []
    if "differences" in arguments.parts:
        check = Check(DIFFERENCES, PILOT_IMAGES, arguments.pilots, arguments.samples, seed=0)
        with tqdm(total=len(DIFFERENCES) * arguments.samples + arguments.pilots, mininterval=30) as bar:
            tables.append(check_differences(check, progress=bar.update))
    if "certificates" in arguments.parts:
        for risk, images in CERTIFICATES.items():
            check = Check(images, PILOT_IMAGES, arguments.pilots, 4 * arguments.samples, seed=0)
            with tqdm(total=len(images) * arguments.pilots, mininterval=30) as bar:
                tables.append(check_certification(check, Certifying(risk, 0.1), progress=bar.update))
    for row in pl.concat(tables).to_dicts():
        shares = [f"{100 * row[name]:.1f}" for name in ("true_power", "mean_stated", "spread", "within")]
        print(f"| {row['asked']} | {row['images']:,} | {row['pilot_images']:,} | {' | '.join(shares)} |")


if __name__ == "__main__":
    main()
