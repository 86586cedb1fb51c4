"""Write the study's figures beside those that the paper prints."""

from quantrust.job import job_log
from quantrust.report.published_table import write_published_table

with job_log(snakemake.log[0]):
    write_published_table(
        snakemake.input.metrics,
        snakemake.input.published,
        snakemake.output.csv,
        snakemake.output.markdown,
        snakemake.output.latex,
        id_dataset=snakemake.params.id_dataset,
        level=snakemake.params.level,
    )
