"""Compute a variant's metrics on every resample of its test images, for the comparison and judgement of variants."""

from quantrust.evaluation.resampled_variant import ResamplingSettings, write_resampled
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    write_resampled(
        snakemake.input.scores,
        dict(zip(snakemake.params.shifts, snakemake.input.mixtures, strict=True)),
        snakemake.output[0],
        model=snakemake.wildcards.model,
        scheme=snakemake.wildcards.scheme,
        settings=ResamplingSettings(**snakemake.params.settings),
    )
