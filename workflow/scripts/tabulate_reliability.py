"""Write the table of calibration errors, areas under the risk-coverage curve and coverages."""

from quantrust.job import job_log
from quantrust.report.tables import write_reliability_table

with job_log(snakemake.log[0]):
    write_reliability_table(
        snakemake.input, snakemake.output[0], id_dataset=snakemake.params.id_dataset, risks=snakemake.params.risks
    )
