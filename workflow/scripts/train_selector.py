"""Train the Selectors of a variant, on dev or on a part of it."""

from quantrust.confidence.selector_training import SelectorSettings, train_selector
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    labels = snakemake.wildcards.get("labels")
    train_selector(
        snakemake.input[0],
        snakemake.output[0],
        SelectorSettings(**snakemake.params.settings),
        None if labels is None else int(labels),
    )
