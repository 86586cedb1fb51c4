"""Write a variant with processor, estimator and operating points as a bundle."""

from quantrust.bundle.write import BundleChoice, BundleSources, write_bundle
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    given = snakemake.input
    sources = BundleSources(
        checkpoint=given.checkpoint,
        features=given.features[0],
        operating_points=given.operating_points,
        metrics=given.metrics,
        scores=given.scores,
        selector=given.selector or None,
    )
    write_bundle(snakemake.output[0], sources, BundleChoice(**snakemake.params.choice))
