"""Write the table of what every scheme keeps of the unquantized model."""

from quantrust.job import job_log
from quantrust.report.tables import write_shipping_table

with job_log(snakemake.log[0]):
    write_shipping_table(snakemake.input[0], snakemake.output[0])
