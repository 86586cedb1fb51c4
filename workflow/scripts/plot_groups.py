"""Draw accuracy, coverage and risk by group of questions."""

from quantrust.job import job_log
from quantrust.report.figures.groups import groups

with job_log(snakemake.log[0]):
    groups(
        snakemake.input,
        snakemake.output.pdf,
        snakemake.output.png,
        grouping=snakemake.params.grouping,
        datasets=snakemake.params.datasets,
        risk=snakemake.params.risk,
        level=snakemake.params.level,
    )
