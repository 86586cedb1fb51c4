"""Read a dataset's official files into its questions table, and list what cannot be asked."""

from quantrust.data.questions import build_questions_table
from quantrust.job import job_log
from quantrust.tasks.task import load_task

with job_log(snakemake.log[0]):
    build_questions_table(
        snakemake.wildcards.dataset,
        snakemake.params.splits,
        snakemake.output.questions,
        snakemake.output.skipped,
        check_references=load_task(snakemake.params.task).check_references,
        division_path=snakemake.input.division or None,
        on_bad_image=snakemake.params.on_bad_image,
        max_aspect_ratio=snakemake.params.max_aspect_ratio,
    )
