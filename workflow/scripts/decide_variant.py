"""Tabulate a variant's thresholds and coverages over a grid of risk limits."""

from quantrust.evaluation.decisions import write_decisions
from quantrust.evaluation.limits import risk_limits
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    write_decisions(
        snakemake.input.scores,
        dict(zip(snakemake.params.shifts, snakemake.input.mixtures, strict=True)),
        snakemake.output[0],
        model=snakemake.wildcards.model,
        scheme=snakemake.wildcards.scheme,
        risks=risk_limits(**snakemake.params.limits),
        **snakemake.params.settings,
    )
