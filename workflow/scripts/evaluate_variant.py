"""Compute a variant's metrics and risk-coverage curves on every mixture."""

from quantrust.evaluation.answers import write_from_scores
from quantrust.evaluation.variant import EvaluationSettings, evaluate_variant
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    begun = snakemake.input.get("begun", [])
    write_from_scores(
        evaluate_variant,
        snakemake.input.scores,
        dict(zip(snakemake.params.shifts, snakemake.input.mixtures, strict=True)),
        [snakemake.output.metrics, snakemake.output.curves],
        begun,
        with_id_dataset=not begun,
        model=snakemake.wildcards.model,
        scheme=snakemake.wildcards.scheme,
        settings=EvaluationSettings(**snakemake.params.settings),
    )
