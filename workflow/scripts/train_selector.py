"""Train the Selectors of a variant."""

from quantrust.confidence.selector import SelectorSettings, train_selector
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    settings = SelectorSettings(**snakemake.params.settings)
    train_selector(snakemake.input[0], snakemake.output[0], settings, seed=snakemake.params.seed)
