"""Measure how far the answers of every scheme drift from those of the unquantized model."""

from itertools import product

from quantrust.evaluation.drift_from_bf16 import DriftSettings, write_drift
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    variants = list(map(tuple, snakemake.params.variants))
    cells = [(*variant, dataset) for variant, dataset in product(variants, snakemake.params.settings["datasets"])]
    write_drift(
        dict(zip(variants, snakemake.input.scores, strict=True)),
        dict(zip(cells, snakemake.input.features, strict=True)),
        snakemake.output[0],
        DriftSettings(**snakemake.params.settings),
    )
