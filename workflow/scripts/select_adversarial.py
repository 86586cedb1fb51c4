"""Choose the questions of the language shift among its candidates by what the adversary answered."""

from quantrust.artifacts.tables import read_table
from quantrust.embedded.datasets import select_adversarial
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    answered = read_table(snakemake.input.features, ["question_id", "quality"])
    select_adversarial(
        snakemake.input.candidates,
        dict(answered.iter_rows()),
        snakemake.output[0],
        questions=snakemake.params.questions,
        wrong_share=snakemake.params.wrong_share,
        seed=snakemake.params.seed,
    )
