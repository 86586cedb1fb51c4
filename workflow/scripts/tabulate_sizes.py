"""Write the table of checkpoint sizes."""

from quantrust.job import job_log
from quantrust.report.tables import write_sizes_table

with job_log(snakemake.log[0]):
    write_sizes_table(snakemake.input, snakemake.output[0])
