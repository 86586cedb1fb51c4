"""Write the table of certified thresholds."""

from quantrust.job import job_log
from quantrust.report.tables import write_certification_table

with job_log(snakemake.log[0]):
    write_certification_table(snakemake.input, snakemake.output[0])
