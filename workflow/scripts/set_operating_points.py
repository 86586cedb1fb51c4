"""Set a variant's operating points: thresholds from val, and thresholds certified on all ID test images."""

from quantrust.evaluation.shipped_points import PointSettings, write_shipped_points
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    write_shipped_points(
        snakemake.input.scores,
        dict(zip(snakemake.params.shifts, snakemake.input.mixtures, strict=True)),
        snakemake.input.features[0],
        snakemake.output[0],
        model=snakemake.wildcards.model,
        scheme=snakemake.wildcards.scheme,
        settings=PointSettings(**snakemake.params.settings),
    )
