"""Read the groups of a dataset's questions from a file that the config names."""

from quantrust.data.question_groups import build_question_groups
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    build_question_groups(
        snakemake.wildcards.dataset,
        snakemake.input.questions,
        snakemake.input.groups,
        snakemake.params.groupings,
        snakemake.output[0],
    )
