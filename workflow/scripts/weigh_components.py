"""Tabulate the metrics of a grid of schemes, and which part of the model moves them."""

from quantrust.evaluation.components import ComponentSettings, write_components
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    variants = [*map(tuple, snakemake.params.variants)]
    write_components(
        dict(zip(variants, snakemake.input.scores, strict=True)),
        dict(zip(variants, snakemake.input.checkpoints, strict=True)),
        [snakemake.output[name] for name in ("grid", "importance", "interactions", "effects")],
        ComponentSettings(**snakemake.params.settings),
    )
