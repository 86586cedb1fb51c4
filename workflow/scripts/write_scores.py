"""Gather a variant's answers with the confidence of every estimator."""

from quantrust.confidence.scores import write_scores
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    write_scores(
        snakemake.input.features,
        snakemake.input.selector or None,
        snakemake.output[0],
        list(snakemake.params.estimators),
        snakemake.input.get("begun"),
    )
