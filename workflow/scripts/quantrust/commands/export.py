"""`quantrust export`: checkpoints in the formats of other libraries."""

import argparse
import textwrap
from pathlib import Path
from typing import Any

from quantrust.commands.outputs import check_writable
from quantrust.named_modules import EXPORT_FORMATS, export_format_names, module_names, module_summary

DESCRIPTION = """\
Write a quantized checkpoint as a folder that other libraries load without this
package. Losses to the format are measured and reported, here and in
DIR/export.json. docs/commands.md has the lines that load such folders."""

EXAMPLES = """\
examples:
  a folder to share
    quantrust export data/checkpoints/qwen2-vl-tiny/mbq-w4g64-full \\
        --format compressed-tensors --out exported/qwen2-vl-tiny
  the float zero-points of HQQ as they are
    quantrust export data/checkpoints/qwen2-vl-tiny/hqq-w4g64 \\
        --format hqq --out exported/qwen2-vl-tiny-hqq
"""

LOSSES = """\
Packed layers have float zero-points in the format hqq alone. In the others
those of HQQ are rounded, at 8 bits by gptq alone. This loses about as much
again as quantization did. It is better to export to hqq, or a checkpoint of
another method, or with --exact. Layers whose scales a format cannot hold stay
in bfloat16 and are named. Every layer that changes by more than 1 % on top of
quantization is named too. A change of more than 10 %, rounded zero-points
aside, is an error unless --force is given."""


FORMAT_WIDTH, HELP_WIDTH = 20, 80


def _formats() -> str:
    """Return a paragraph for each format, from the docstrings of their modules."""
    lines = ["formats:"]
    for name, module in zip(export_format_names(), module_names(EXPORT_FORMATS), strict=True):
        lines += textwrap.wrap(
            module_summary(EXPORT_FORMATS, module),
            HELP_WIDTH,
            initial_indent=f"  {name:<{FORMAT_WIDTH}}",
            subsequent_indent=" " * (2 + FORMAT_WIDTH),
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def add_parser(subparsers: Any) -> None:
    """Add the subcommand to the parser of `quantrust`."""
    parser = subparsers.add_parser(
        "export",
        help="write a checkpoint as a folder that other libraries load",
        description=DESCRIPTION,
        epilog="\n".join([EXAMPLES, _formats(), "", LOSSES]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder of a quantized checkpoint")
    parser.add_argument("--format", choices=export_format_names(), required=True, help="format to write")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write, new or empty")
    parser.add_argument(
        "--exact", action="store_true", help="keep every weight as it is, at whatever size, if the format can"
    )
    parser.add_argument(
        "--force", action="store_true", help="write even layers that the format changes by more than a tenth"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Export a checkpoint and print how each part was stored and what the export lost and saved.

    Raises
    ------
    QuantrustError
        If the checkpoint is damaged, the format cannot hold it or would change a layer by more than a tenth, or the
        folder cannot be written. Nothing is then written.
    """
    # torch takes seconds to import, which the other commands need not wait for
    from quantrust.quantization.export import REPORT, describe_export, export_checkpoint

    check_writable(arguments.out / REPORT)
    report = export_checkpoint(
        arguments.checkpoint, arguments.format, arguments.out, exact=arguments.exact, force=arguments.force
    )
    print(describe_export(report))
