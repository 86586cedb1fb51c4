"""Train the Selectors of a variant."""

from quantrust.confidence.selector import SelectorSettings, train_selector
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    train_selector(snakemake.input[0], snakemake.output[0], SelectorSettings(**snakemake.params.settings))
