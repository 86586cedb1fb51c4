"""Copy a model folder after checking every file against its digest."""

from pathlib import Path

from quantrust.job import job_log
from quantrust.models.embedded import prepare_model

with job_log(snakemake.log[0]):
    prepare_model(Path(snakemake.input[0]).parent, snakemake.output[0], snakemake.params.family)
