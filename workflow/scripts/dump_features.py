"""Answer the questions of a dataset with a variant and write its features."""

from quantrust.inference.features import DumpSettings, dump_features
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    settings = dict(snakemake.params.settings)
    if settings["top_k"] == "all":
        settings["top_k"] = None
    dump_features(snakemake.input.checkpoint, snakemake.input.questions, snakemake.output[0], DumpSettings(**settings))
