"""Write the table of how far another training of a learned estimator moves its figures."""

from quantrust.job import job_log
from quantrust.report.tables import write_members_table

with job_log(snakemake.log[0]):
    write_members_table(
        snakemake.input, snakemake.output[0], id_dataset=snakemake.params.id_dataset, risks=snakemake.params.risks
    )
