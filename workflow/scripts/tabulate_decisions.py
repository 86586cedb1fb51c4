"""Write the table of thresholds and coverages over a grid of risk limits."""

from quantrust.job import job_log
from quantrust.report.tables import write_decisions_table

with job_log(snakemake.log[0]):
    write_decisions_table(snakemake.input, snakemake.output[0])
