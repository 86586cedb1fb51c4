"""Find what the queries of a dataset look for with a variant and write it."""

from quantrust.inference.matching import dump_matches
from quantrust.inference.settings import MatchSettings
from quantrust.job import job_log
from quantrust.tasks.task import load_task

with job_log(snakemake.log[0]):
    dump_matches(
        snakemake.input.checkpoint,
        snakemake.input.questions,
        snakemake.output[0],
        MatchSettings(**snakemake.params.settings),
        load_task(snakemake.params.task),
        # Not a parameter: files do not depend on it, so another number must not dump them again.
        workers=snakemake.config["features"]["workers"],
    )
