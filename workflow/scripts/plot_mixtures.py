"""Draw the figure mixtures."""

from quantrust.job import job_log
from quantrust.report.figures import mixtures

with job_log(snakemake.log[0]):
    mixtures()
