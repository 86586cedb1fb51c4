"""Compute a variant's metrics and risk-coverage curves on every mixture."""

from quantrust.evaluation.study import write_evaluation
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    write_evaluation(
        snakemake.input.scores,
        dict(zip(snakemake.params.shifts, snakemake.input.mixtures, strict=True)),
        snakemake.output.metrics,
        snakemake.output.curves,
        model=snakemake.wildcards.model,
        scheme=snakemake.wildcards.scheme,
        **snakemake.params.settings,
    )
