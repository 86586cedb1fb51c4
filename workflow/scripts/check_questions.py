"""Let a model's tokenizer read all questions of a dataset."""

from quantrust.inference.question_check import check_questions
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    check_questions(
        snakemake.input.model,
        snakemake.wildcards.dataset,
        snakemake.params.splits,
        snakemake.params.prompt,
        snakemake.output[0],
    )
