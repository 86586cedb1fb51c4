"""Copy a model folder, checking every file against its digest where that is known."""

from pathlib import Path

from quantrust.job import job_log
from quantrust.models.embedded import prepare_model

with job_log(snakemake.log[0]):
    prepare_model(Path(snakemake.input[0]).parent, snakemake.output[0], snakemake.params.family)
