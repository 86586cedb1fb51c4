"""Choose the calibration samples of a model among image-caption pairs."""

import polars as pl

from quantrust.files import atomic_path
from quantrust.job import job_log
from quantrust.quantization.calibration import build_calibration_table

with job_log(snakemake.log[0]), atomic_path(snakemake.output[0]) as partial:
    source = snakemake.params.source
    questions = snakemake.input.get("questions")
    table = build_calibration_table(
        snakemake.input.model,
        source["captions"],
        source["images"],
        samples=snakemake.params.samples,
        seed=snakemake.params.seed,
        only=source.get("only", ""),
        asked_about=[] if questions is None else pl.read_parquet(questions, columns=["image"])["image"],
    )
    table.write_parquet(partial)
