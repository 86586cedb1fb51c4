"""Draw risk against coverage in distribution."""

from quantrust.job import job_log
from quantrust.report.figures.risk_coverage import risk_coverage

with job_log(snakemake.log[0]):
    risk_coverage(
        snakemake.input.curves,
        snakemake.input.metrics,
        snakemake.output.pdf,
        snakemake.output.png,
        id_dataset=snakemake.params.id_dataset,
        risks=snakemake.params.risks,
        level=snakemake.params.level,
    )
