"""Write tables of the evaluation as they are, as one CSV."""

from quantrust.job import job_log
from quantrust.report.tables import write_as_csv

with job_log(snakemake.log[0]):
    write_as_csv(snakemake.input, snakemake.output[0])
