"""Draw accuracy and coverage at risk limits against bytes on disk."""

from quantrust.job import job_log
from quantrust.report.figures.efficiency import efficiency

with job_log(snakemake.log[0]):
    efficiency(
        snakemake.input.metrics,
        snakemake.input.sizes,
        snakemake.output.pdf,
        snakemake.output.png,
        id_dataset=snakemake.params.id_dataset,
        risks=snakemake.params.risks,
        level=snakemake.params.level,
    )
