"""Divide a dataset into splits that share no image."""

from quantrust.data.questions import write_division
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    write_division(snakemake.wildcards.dataset, snakemake.params.files, snakemake.params.division, snakemake.output[0])
