"""Put outlier channels into a model without changing its function."""

from quantrust.embedded.stress import stress_model
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    stress_model(snakemake.input[0], snakemake.output[0], seed=snakemake.params.seed, **snakemake.params.settings)
