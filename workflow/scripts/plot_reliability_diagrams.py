"""Draw soft accuracy against confidence."""

from quantrust.job import job_log
from quantrust.report.figures.reliability_diagrams import reliability_diagrams

with job_log(snakemake.log[0]):
    reliability_diagrams(
        snakemake.input,
        snakemake.output.pdf,
        snakemake.output.png,
        id_dataset=snakemake.params.id_dataset,
        level=snakemake.params.level,
    )
