"""Draw example questions of every variant: what its threshold keeps and what not, right and wrong."""

from itertools import product

from quantrust.evaluation.examples import ExampleSettings, write_examples
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    variants, datasets = list(map(tuple, snakemake.params.variants)), snakemake.params.datasets
    cells = [(*variant, dataset) for variant, dataset in product(variants, datasets)]
    write_examples(
        dict(zip(datasets, snakemake.input.questions, strict=True)),
        dict(zip(variants, snakemake.input.scores, strict=True)),
        dict(zip(cells, snakemake.input.features, strict=True)),
        dict(zip(variants, snakemake.input.decisions, strict=True)),
        snakemake.output[0],
        ExampleSettings(**snakemake.params.settings),
    )
