"""Answer the questions of a shard of a dataset with a variant and write their features."""

from quantrust.inference.features import dump_features
from quantrust.inference.settings import DumpSettings
from quantrust.job import job_log
from quantrust.tasks.task import load_task

with job_log(snakemake.log[0]):
    dump_features(
        snakemake.input.checkpoint,
        snakemake.input.questions,
        snakemake.output[0],
        DumpSettings.from_config(snakemake.params.settings),
        load_task(snakemake.params.task),
        # Not a parameter: files do not depend on it, so another number must not dump them again.
        workers=snakemake.config["features"]["workers"],
        shard=(int(snakemake.wildcards.shard), int(snakemake.wildcards.shards)),
    )
