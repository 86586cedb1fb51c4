"""Break a variant's test answers down by kind of question and by bin of confidence."""

from quantrust.evaluation.breakdowns import write_breakdown
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    write_breakdown(
        snakemake.input.scores,
        dict(zip(snakemake.params.shifts, snakemake.input.mixtures, strict=True)),
        snakemake.output.groups,
        snakemake.output.bins,
        model=snakemake.wildcards.model,
        scheme=snakemake.wildcards.scheme,
        **snakemake.params.settings,
    )
