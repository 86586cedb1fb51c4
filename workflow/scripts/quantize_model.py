"""Quantize a model under a scheme."""

from quantrust.job import job_log
from quantrust.quantization.quantize import quantize_model

with job_log(snakemake.log[0]):
    quantize_model(
        snakemake.input.model,
        snakemake.wildcards.scheme,
        snakemake.input.calibration or None,
        snakemake.output[0],
    )
