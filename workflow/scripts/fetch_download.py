"""Download what one entry of the config names and check it against its lock."""

from quantrust.downloads.fetch import fetch
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    fetch(snakemake.wildcards.download, snakemake.params.settings, snakemake.params.lock, snakemake.output[0])
