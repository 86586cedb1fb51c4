"""Put outlier channels into a model without changing its function."""

from quantrust.job import job_log
from quantrust.quantization.stress import stress_model

with job_log(snakemake.log[0]):
    stress_model(snakemake.input[0], snakemake.output[0], seed=snakemake.params.seed, **snakemake.params.settings)
