"""Quantize a model under a scheme."""

from quantrust.job import job_log
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.scheme import resolve_scheme

activations_mb = snakemake.resources.get("activations_mb")

with job_log(snakemake.log[0]):
    quantize_model(
        snakemake.input.model,
        resolve_scheme(snakemake.wildcards.scheme, snakemake.params.table),
        snakemake.input.calibration or None,
        snakemake.output[0],
        snakemake.params.device,
        None if activations_mb is None else activations_mb * 10**6,
    )
