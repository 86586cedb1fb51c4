"""Compare schemes with no quantization, and estimators with maxprob, question by question."""

from quantrust.evaluation.comparison import ComparisonSettings, write_comparisons
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    write_comparisons(
        dict(zip(map(tuple, snakemake.params.variants), snakemake.input, strict=True)),
        snakemake.output[0],
        ComparisonSettings(**snakemake.params.settings),
    )
