"""`quantrust export`: checkpoints in the formats of other libraries."""

import argparse
from pathlib import Path
from typing import Any

FORMATS = ("compressed-tensors", "gptq")

EXAMPLES = """\
examples:
  quantrust export data/checkpoints/qwen2-vl-tiny/mbq-w4g64 --format compressed-tensors --out exported
  python -c "from transformers import AutoModelForImageTextToText as A; A.from_pretrained('exported')"

compressed-tensors: every width and component; pip install compressed-tensors to load it.
gptq: 2, 3, 4 or 8 bits, one width and group size a model, linears only; envs/export.yaml has what loads it.
Packed layers have no float zero-points: exporting an hqq checkpoint of less than 8 bits rounds them, which loses about
as much as quantization did. Export rtn, awq, mbq or gptq checkpoints, or hqq ones with --exact."""


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of `quantrust`."""
    parser = subparsers.add_parser(
        "export",
        help="write a checkpoint in a format that transformers loads",
        description="Write a quantized checkpoint as a folder that transformers.AutoModelForImageTextToText loads "
        "without this package. What the format can not hold is said and measured, here and in DIR/export.json.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of a quantized checkpoint")
    parser.add_argument("--format", choices=FORMATS, required=True, help="format to write")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder to write")
    parser.add_argument(
        "--exact", action="store_true", help="keep every weight as it is, at whatever size (compressed-tensors only)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Export and say what was stored, lost and saved.

    Raises
    ------
    QuantrustError
        For a checkpoint that is damaged or that the format can not hold, or a folder that can not be written.
    """
    # torch takes seconds to import, which the other commands need not wait for
    from quantrust.quantization.export import describe_export, export_checkpoint

    print(describe_export(export_checkpoint(arguments.checkpoint, arguments.format, arguments.out, arguments.exact)))
