"""Quantize a model under a scheme."""

from quantrust.job import job_log
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.scheme import resolve_scheme

with job_log(snakemake.log[0]):
    quantize_model(
        snakemake.input.model,
        resolve_scheme(snakemake.wildcards.scheme, snakemake.params.table),
        snakemake.input.calibration or None,
        snakemake.output[0],
        snakemake.params.device,
    )
