"""Write the table of accuracies."""

from quantrust.job import job_log
from quantrust.report.tables import write_accuracy_table

with job_log(snakemake.log[0]):
    write_accuracy_table(snakemake.input, snakemake.output[0], id_dataset=snakemake.params.id_dataset)
