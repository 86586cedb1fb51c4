"""Draw what is left at fewer bits, in distribution."""

from quantrust.job import job_log
from quantrust.report.figures.degradation import degradation

with job_log(snakemake.log[0]):
    degradation(
        snakemake.input,
        snakemake.output.pdf,
        snakemake.output.png,
        id_dataset=snakemake.params.id_dataset,
        risks=snakemake.params.risks,
        level=snakemake.params.level,
    )
