"""Write the report's page."""

from itertools import product

from quantrust.job import job_log
from quantrust.report.page.build import Sources, write_page
from quantrust.report.wording import Words, speaking_of

with job_log(snakemake.log[0]), speaking_of(Words(**snakemake.params.words)):
    given, params = snakemake.input, snakemake.params
    variants = list(map(tuple, params.variants))
    cells = [(*variant, dataset) for variant, dataset in product(variants, params.datasets)]
    by_variant = ("metrics", "curves", "scores", "checkpoints")
    of_all = ("decisions", "shipping", "sizes", "data", "comparisons", "examples")
    published, reference = given.published or (None, None)
    sources = Sources(
        **{name: dict(zip(variants, given[name], strict=True)) for name in by_variant},
        features=dict(zip(cells, given.features, strict=True)),
        questions=dict(zip(params.datasets, given.questions, strict=True)),
        **{name: given[name] for name in of_all},
        figures=dict(zip(params.captions, given.figures, strict=True)),
        fairness=given.fairness or None,
        published=published,
        reference=reference,
        shares=given.shares or None,
    )
    write_page(sources, snakemake.output[0], captions=params.captions, config=params.study, workflow=params.workflow)
