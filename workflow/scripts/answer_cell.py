"""Answer the ID dataset with a variant that is a cell of a grid, unless the job of another cell has done so already."""

from importlib import import_module

from quantrust.inference.cells import Cell, take
from quantrust.job import job_log

activations_mb = snakemake.resources.get("activations_mb")


def others():
    # found by name, as no part of this job's code: which other cells there are changes no byte of this one
    beside = import_module("quantrust.study.cells").cells_beside
    return beside(snakemake.config, snakemake.wildcards.model, snakemake.wildcards.scheme)


with job_log(snakemake.log[0]):
    cell = Cell(
        snakemake.wildcards.scheme,
        snakemake.input.model,
        snakemake.input.questions,
        snakemake.input.calibration or None,
        tuple([snakemake.input.images] if isinstance(snakemake.input.images, str) else snakemake.input.images),
        snakemake.params.given,
        snakemake.output.features,
        snakemake.output.record,
        snakemake.params.made,
    )
    if not take(cell, cell.key()):
        # the libraries take seconds to import
        from quantrust.inference.sweep import make_cells

        make_cells(
            cell,
            others,
            workers=snakemake.config["features"]["workers"],
            activation_bytes=None if activations_mb is None else activations_mb * 10**6,
        )
        take(cell, cell.key())
