"""Write the tables whose values the page shows."""

from quantrust.job import job_log
from quantrust.report.page.build import write_tables

with job_log(snakemake.log[0]):
    write_tables(snakemake.input.decisions, snakemake.input.shipping, dict(snakemake.output.items()))
