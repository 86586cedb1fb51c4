"""Draw accuracy and coverage at a risk limit against the share of questions in distribution."""

from quantrust.job import job_log
from quantrust.report.figures.mixtures import mixtures

with job_log(snakemake.log[0]):
    mixtures(
        snakemake.input,
        snakemake.output.pdf,
        snakemake.output.png,
        home=snakemake.params.home,
        risk=snakemake.params.risk,
        level=snakemake.params.level,
    )
