"""Draw what the Selector gains over MaxProb."""

from quantrust.job import job_log
from quantrust.report.figures.selector_gain import selector_gain

with job_log(snakemake.log[0]):
    selector_gain(
        snakemake.input[0],
        snakemake.output.pdf,
        snakemake.output.png,
        risks=snakemake.params.risks,
        level=snakemake.params.level,
    )
