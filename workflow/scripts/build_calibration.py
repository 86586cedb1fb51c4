"""Choose the calibration samples of a model among the captions of the train split."""

from pathlib import Path

from quantrust.files import atomic_path
from quantrust.job import job_log
from quantrust.quantization.calibration import build_calibration_table

with job_log(snakemake.log[0]), atomic_path(snakemake.output[0]) as partial:
    dataset = Path(snakemake.input.dataset)
    table = build_calibration_table(
        snakemake.input.model,
        dataset / "captions.json",
        dataset / "images",
        samples=snakemake.params.samples,
        seed=snakemake.params.seed,
    )
    table.write_parquet(partial)
