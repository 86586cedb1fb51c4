"""Quantize a model under a scheme; go on with other schemes."""

from importlib import import_module

from quantrust.job import job_log
from quantrust.quantization.checkpoint_job import quantize_schemes
from quantrust.quantization.early_checkpoint import EarlyCheckpoint

activations_mb = snakemake.resources.get("activations_mb")

with job_log(snakemake.log[0]):
    quantize_schemes(
        EarlyCheckpoint(
            snakemake.output[0],
            snakemake.params.made,
            snakemake.wildcards.scheme,
            snakemake.input.model,
            snakemake.input.calibration or None,
            tuple(snakemake.input.images),
            snakemake.params.given,
        ),
        # Found by name, as no part of this job's code: which other schemes there are changes no byte of this one.
        lambda: import_module("quantrust.study.checkpoints").checkpoints_beside(
            snakemake.config, *snakemake.wildcards, snakemake.params.given
        ),
        activation_bytes=None if activations_mb is None else activations_mb * 10**6,
    )
