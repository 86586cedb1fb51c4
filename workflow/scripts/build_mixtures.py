"""Draw the mixtures of questions in distribution and of one shift."""

from quantrust.evaluation.mixtures import write_mixtures
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    write_mixtures(
        snakemake.input.id_dataset,
        snakemake.input.shift,
        snakemake.output[0],
        id_shares=snakemake.params.id_shares,
        seed=snakemake.params.seed,
    )
