"""Hold what every scheme keeps of the unquantized model against the shipping criterion."""

from quantrust.evaluation.shipping import ShippingSettings, write_shipping
from quantrust.job import job_log

with job_log(snakemake.log[0]):
    write_shipping(
        dict(zip(map(tuple, snakemake.params.variants), snakemake.input, strict=True)),
        snakemake.output[0],
        ShippingSettings(**snakemake.params.settings),
    )
