"""Compare Selectors that were trained on parts of dev with MaxProb."""

from quantrust.evaluation.learning import LearningSettings, write_learning_curve
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    write_learning_curve(
        dict(zip(snakemake.params.labels, snakemake.input.scores, strict=True)),
        dict(zip(snakemake.params.shifts, snakemake.input.mixtures, strict=True)),
        snakemake.output[0],
        model=snakemake.wildcards.model,
        scheme=snakemake.wildcards.scheme,
        settings=LearningSettings(**snakemake.params.settings),
    )
