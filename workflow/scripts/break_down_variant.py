"""Break a variant's test answers down by kind of question and by bin of confidence."""

from quantrust.evaluation.answers import write_from_scores
from quantrust.evaluation.breakdowns import BreakdownSettings, break_down
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    begun = snakemake.input.get("begun", [])
    write_from_scores(
        break_down,
        snakemake.input.scores,
        dict(zip(snakemake.params.shifts, snakemake.input.mixtures, strict=True)),
        [snakemake.output.groups, snakemake.output.bins],
        begun,
        with_id_dataset=not begun,
        model=snakemake.wildcards.model,
        scheme=snakemake.wildcards.scheme,
        settings=BreakdownSettings(**snakemake.params.settings),
    )
