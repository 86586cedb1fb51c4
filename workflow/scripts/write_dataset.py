"""Write an embedded dataset in its official format."""

from quantrust.job import job_log
from quantrust.vqa.embedded import write_dataset

with job_log(snakemake.log[0]):
    write_dataset(snakemake.wildcards.dataset, snakemake.output[0], snakemake.params.settings)
