"""Write one of the paper's main tables."""

from quantrust.job import job_log
from quantrust.report.paper_tables import write_paper_table

with job_log(snakemake.log[0]):
    write_paper_table(
        snakemake.input.metrics,
        snakemake.input.comparisons,
        snakemake.input.published,
        snakemake.output.csv,
        snakemake.output.markdown,
        snakemake.output.latex,
        name=snakemake.rule.removeprefix("tabulate_"),
        **snakemake.params.settings,
    )
