"""Make a checkpoint of a folder that others quantized."""

from quantrust.job import job_log
from quantrust.quantization.external import import_checkpoint

with job_log(snakemake.log[0]):
    import_checkpoint(
        snakemake.input.model,
        snakemake.params.folder,
        snakemake.wildcards.scheme,
        snakemake.output[0],
    )
