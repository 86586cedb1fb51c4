"""Answer the questions of a dataset with a variant and write their features; go on with others of the model."""

from importlib import import_module

from quantrust.inference.dump_job import answer_datasets
from quantrust.inference.dumps import Dump
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    answer_datasets(
        Dump(
            snakemake.output[0],
            snakemake.params.made,
            snakemake.input.checkpoint,
            snakemake.input.questions,
            tuple(snakemake.input.images),
            snakemake.params.given,
        ),
        # Found by name, as no part of this job's code: which others there are changes no byte of this one.
        lambda: import_module("quantrust.study.dumps").dumps_beside(
            snakemake.config, *snakemake.wildcards, snakemake.params.given
        ),
        # Not a parameter: files do not depend on it, so another number must not dump them again.
        workers=snakemake.config["features"]["workers"],
    )
