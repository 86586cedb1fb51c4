"""`quantrust bundle`: a variant with processor, estimator and operating points as one folder."""

import argparse
from pathlib import Path
from typing import Any

from quantrust.commands.numbers import share
from quantrust.commands.outputs import check_writable
from quantrust.errors import QuantrustError

DESCRIPTION = """\
Write the folder of a bundle: a variant of a study with all that it takes to
answer a question about an image, or to abstain. It needs nothing of the study
any more. Its README.md is a model card with the study's figures."""

EPILOG = """\
examples:
  what the report found fit to ship
    quantrust bundle data/checkpoints/qwen2-vl-tiny/hqq-w4g64-full \\
        --risk 0.05 --out my-bundle
  with another estimator, and the licence for the model card
    quantrust bundle data/checkpoints/qwen2-vl-tiny/hqq-w4g64-full \\
        --estimator selector --risk 0.05 --license apache-2.0 --out my-bundle
  the same with the settings of the study's config, kept up to date
    snakemake data/bundles/qwen2-vl-tiny/hqq-w4g64-full

CHECKPOINT lies where the study wrote it: the variant's scores, metrics,
features, Selector and operating points are read from the folders beside it.
Weights are hard links where the file system allows, and take no further disk.

The exit code is 0 if the bundle is written, and 2 with a message if not;
nothing is written then."""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of `quantrust`."""
    parser = subparsers.add_parser(
        "bundle",
        help="write a variant that answers or abstains as one folder",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="data/checkpoints/<model>/<scheme>")
    parser.add_argument(
        "--risk", type=share, required=True, metavar="R", help="risk limit that is meant where none is asked for"
    )
    parser.add_argument(
        "--estimator", metavar="E", help="whose confidence decides (default: the first that the study declared)"
    )
    parser.add_argument("--base-model", metavar="NAME", help="the model's name, for the card (default: the study's)")
    parser.add_argument("--license", metavar="ID", help="the model's licence, for the card, such as apache-2.0")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write, new or empty")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Write a bundle and say what is in it.

    Raises
    ------
    QuantrustError
        If the folder cannot be written, or as `quantrust.bundle.write.write_bundle`. Nothing is then written.
    """
    # torch takes seconds to import, which the other commands need not wait for
    from quantrust.bundle.record import RECORD, describe_limits, read_bundle
    from quantrust.bundle.write import BundleChoice, BundleSources, write_bundle
    from quantrust.evaluation.operating_points import read_operating_points

    check_writable(arguments.out / RECORD)
    if arguments.out.exists() and any(arguments.out.iterdir()):
        raise QuantrustError(f"{arguments.out}: is not empty; expected --out with a folder that is new or empty")
    checkpoint = arguments.checkpoint.resolve()
    if not checkpoint.is_dir():
        raise QuantrustError(f"{arguments.checkpoint}: no such folder; expected data/checkpoints/<model>/<scheme>")
    model, scheme, study = checkpoint.parent.name, checkpoint.name, checkpoint.parents[2]
    points_path = study / "operating_points" / model / f"{scheme}.json"
    if not points_path.is_file():
        raise QuantrustError(
            f"{arguments.checkpoint}: is no checkpoint of a study, or one without thresholds as yet: there is no "
            f"{points_path}; `snakemake data/bundles/{model}/{scheme}` in the study's folder, with its --configfile, "
            "sets them and writes the bundle"
        )
    points = read_operating_points(points_path)
    if arguments.estimator is None:
        estimators = list(dict.fromkeys(point.estimator for point in points.points))
        estimators = [*(points.certification.estimators if points.certification else ()), *estimators]
        if not estimators:
            raise QuantrustError(
                f"{checkpoint}: the study has no operating point of this variant; it cannot be bundled"
            )
        arguments.estimator = estimators[0]
    sources = BundleSources(
        checkpoint=checkpoint,
        features=study / "features" / model / scheme / f"{points.id_dataset}.parquet",
        operating_points=points_path,
        metrics=study / "metrics" / model / f"{scheme}.parquet",
        scores=study / "scores" / model / f"{scheme}.parquet",
        selector=study / "selectors" / model / scheme,
    )
    choice = BundleChoice(arguments.estimator, arguments.risk, arguments.base_model or model, arguments.license)
    write_bundle(arguments.out, sources, choice)
    record = read_bundle(arguments.out)
    print(f"{arguments.out}: {record.name}, {record.estimator}, risk limits {describe_limits(record.points)}")
    if record.license is None:
        print("note: the card names no licence of the base model; --license does")
    question = ' --question "..."' if record.asked is None else ""
    print(f"ask it: quantrust answer {arguments.out} --image IMAGE{question}")
