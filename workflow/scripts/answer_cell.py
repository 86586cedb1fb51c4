"""Answer the ID dataset with a variant that is a cell of a grid, unless the job of another cell has done so already."""

from importlib import import_module

from quantrust.inference.cell_job import answer_cell
from quantrust.inference.cells import Cell
from quantrust.job import job_log

activations_mb = snakemake.resources.get("activations_mb")

with job_log(snakemake.log[0]):
    answer_cell(
        Cell(
            snakemake.wildcards.scheme,
            snakemake.input.model,
            snakemake.input.questions,
            snakemake.input.calibration or None,
            tuple(snakemake.input.images),
            snakemake.params.given,
            snakemake.output.features,
            snakemake.output.record,
            snakemake.params.made,
        ),
        # Found by name, as no part of this job's code: which other cells there are changes no byte of this one.
        lambda: import_module("quantrust.study.cells").cells_beside(
            snakemake.config, *snakemake.wildcards, snakemake.params.given
        ),
        workers=snakemake.config["features"]["workers"],
        activation_bytes=None if activations_mb is None else activations_mb * 10**6,
    )
