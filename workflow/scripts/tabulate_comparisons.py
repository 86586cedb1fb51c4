"""Write the table of paired differences."""

from quantrust.job import job_log
from quantrust.report.tables import write_comparisons_table

with job_log(snakemake.log[0]):
    write_comparisons_table(snakemake.input[0], snakemake.output[0])
