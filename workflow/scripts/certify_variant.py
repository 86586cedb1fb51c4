"""Certify a variant's thresholds and count how often their promise is broken."""

from quantrust.evaluation.certification import write_certification
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    write_certification(
        snakemake.input.scores,
        dict(zip(snakemake.params.shifts, snakemake.input.mixtures, strict=True)),
        snakemake.output[0],
        model=snakemake.wildcards.model,
        scheme=snakemake.wildcards.scheme,
        **snakemake.params.settings,
    )
