"""Draw the figure degradation."""

from quantrust.job import job_log
from quantrust.report.figures import degradation

with job_log(snakemake.log[0]):
    degradation()
