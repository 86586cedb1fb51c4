"""Choose the questions of the language shift among its candidates by what the adversary answered."""

import polars as pl

from quantrust.job import job_log
from quantrust.vqa.embedded import select_adversarial

with job_log(snakemake.log[0]):
    answered = pl.read_parquet(snakemake.input.features, columns=["question_id", "accuracy"])
    select_adversarial(
        snakemake.input.candidates,
        dict(answered.iter_rows()),
        snakemake.output[0],
        questions=snakemake.params.questions,
        wrong_share=snakemake.params.wrong_share,
        seed=snakemake.params.seed,
    )
