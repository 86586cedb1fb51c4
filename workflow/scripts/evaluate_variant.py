"""Compute a variant's metrics and risk-coverage curves on every mixture."""

from quantrust.evaluation.study import evaluate_variant
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    evaluate_variant()
