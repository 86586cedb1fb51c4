"""Choose the calibration samples of a model among image-caption pairs."""

from quantrust.artifacts.tables import read_table, write_table
from quantrust.job import job_log
from quantrust.quantization.calibration_samples import build_calibration_table

with job_log(snakemake.log[0]):
    source = snakemake.params.source
    questions = snakemake.input.get("questions")
    table = build_calibration_table(
        snakemake.input.model,
        source["captions"],
        source["images"],
        samples=snakemake.params.samples,
        seed=snakemake.params.seed,
        only=source.get("only", ""),
        on_bad_image=snakemake.params.on_bad_image,
        asked_about=[] if questions is None else read_table(questions, ["image"])["image"],
    )
    write_table(table, snakemake.output[0])
