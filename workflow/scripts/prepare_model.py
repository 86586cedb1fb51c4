"""Make a model folder as the study uses it, and check it."""

from quantrust.job import job_log
from quantrust.models.model_folder import prepare_model

with job_log(snakemake.log[0]):
    prepare_model(
        snakemake.params.source,
        snakemake.output[0],
        snakemake.params.family,
        processor=snakemake.params.processor,
        chat_template=snakemake.input.chat_template or None,
    )
