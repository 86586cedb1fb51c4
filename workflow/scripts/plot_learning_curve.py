"""Draw what Selectors gain for the labels that they cost."""

from quantrust.job import job_log
from quantrust.report.figures.learning_curve import learning_curve

with job_log(snakemake.log[0]):
    learning_curve(
        snakemake.input,
        snakemake.output.pdf,
        snakemake.output.png,
        risk=snakemake.params.risk,
        level=snakemake.params.level,
    )
