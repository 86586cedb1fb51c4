"""Write a table of the report."""

from quantrust.job import job_log
from quantrust.report.making import write_table

with job_log(snakemake.log[0]):
    write_table(
        snakemake.params.module,
        dict(snakemake.output.items()),
        dict(snakemake.input.items()),
        snakemake.params.settings,
        snakemake.params.words,
    )
