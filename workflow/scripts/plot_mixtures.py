"""Draw accuracy and coverage at risk limits against the share of questions in distribution."""

from quantrust.job import job_log
from quantrust.report.figures.mixtures import mixtures

with job_log(snakemake.log[0]):
    mixtures(
        snakemake.input,
        snakemake.output.pdf,
        snakemake.output.png,
        id_dataset=snakemake.params.id_dataset,
        risks=snakemake.params.risks,
        level=snakemake.params.level,
    )
