"""Certify a variant's thresholds and count how often their promise is broken."""

from quantrust.evaluation.answers import write_from_scores
from quantrust.evaluation.certification import CertificationSettings, evaluate_certification
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    write_from_scores(
        evaluate_certification,
        snakemake.input.scores,
        dict(zip(snakemake.params.shifts, snakemake.input.mixtures, strict=True)),
        snakemake.output,
        model=snakemake.wildcards.model,
        scheme=snakemake.wildcards.scheme,
        settings=CertificationSettings(**snakemake.params.settings),
    )
