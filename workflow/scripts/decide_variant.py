"""Tabulate a variant's thresholds and coverages over a grid of risk limits."""

from quantrust.evaluation.answers import write_from_scores
from quantrust.evaluation.decisions import DecisionSettings, decide_variant
from quantrust.evaluation.limits import risk_limits
from quantrust.evaluation.operating_points import read_operating_points
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    write_from_scores(
        decide_variant,
        snakemake.input.scores,
        dict(zip(snakemake.params.shifts, snakemake.input.mixtures, strict=True)),
        snakemake.output,
        model=snakemake.wildcards.model,
        scheme=snakemake.wildcards.scheme,
        shipped=read_operating_points(snakemake.input.operating_points),
        settings=DecisionSettings(risks=risk_limits(**snakemake.params.limits), **snakemake.params.settings),
    )
