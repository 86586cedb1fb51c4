"""Draw a figure of the report."""

from quantrust.job import job_log
from quantrust.report.making import draw_figure

with job_log(snakemake.log[0]):
    draw_figure(
        snakemake.params.module,
        dict(snakemake.output.items()),
        dict(snakemake.input.items()),
        snakemake.params.settings,
        snakemake.params.words,
    )
