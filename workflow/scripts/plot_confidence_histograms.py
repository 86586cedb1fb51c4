"""Draw how confident right and wrong answers are."""

from quantrust.job import job_log
from quantrust.report.figures.confidence_histograms import confidence_histograms

with job_log(snakemake.log[0]):
    confidence_histograms(
        snakemake.input,
        snakemake.output.pdf,
        snakemake.output.png,
        id_dataset=snakemake.params.id_dataset,
    )
