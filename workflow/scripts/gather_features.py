"""Put the shards of the features of a variant and a dataset together."""

from quantrust.inference.gathering import gather_features
from quantrust.inference.settings import DumpSettings
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    gather_features(
        snakemake.input.shards,
        snakemake.input.questions,
        snakemake.output[0],
        DumpSettings.from_config(snakemake.params.settings),
    )
