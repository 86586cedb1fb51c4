"""Write the table of images and questions, and of what was left out."""

from quantrust.job import job_log
from quantrust.report.tables import write_data_table

with job_log(snakemake.log[0]):
    write_data_table(
        snakemake.input.questions, snakemake.input.skipped, snakemake.output[0], id_dataset=snakemake.params.id_dataset
    )
