"""Write an embedded dataset in its official format."""

from quantrust.embedded.datasets import write_dataset
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    write_dataset(snakemake.wildcards.dataset, snakemake.output[0], snakemake.params.settings)
