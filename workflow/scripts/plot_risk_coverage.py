"""Draw the figure risk coverage."""

from quantrust.job import job_log
from quantrust.report.figures import risk_coverage

with job_log(snakemake.log[0]):
    risk_coverage()
