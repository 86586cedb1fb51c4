"""Tabulate what one threshold does to every group of questions, and whether quantization widens gaps."""

from quantrust.evaluation.fairness import FairnessSettings, write_fairness
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    write_fairness(
        dict(zip(map(tuple, snakemake.params.variants), snakemake.input.scores, strict=True)),
        dict(zip(snakemake.params.shifts, snakemake.input.mixtures, strict=True)),
        dict(zip(snakemake.params.grouped, snakemake.input.groups, strict=True)),
        snakemake.output[0],
        FairnessSettings(**snakemake.params.settings),
    )
