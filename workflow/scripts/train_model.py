"""Train an embedded model from scratch."""

from quantrust.embedded.training.settings import settings_from
from quantrust.embedded.training.train import train_embedded_model
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    train_embedded_model(snakemake.wildcards.model, snakemake.output[0], settings_from(snakemake.params.settings))
