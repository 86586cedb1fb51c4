# The page, and what only the page needs: a grid of risk limits, what schemes keep of the unquantized model, examples.


rule decide_variant:
    input:
        scores=paths.SCORES,
        mixtures=expand(paths.MIXTURES, dataset=SHIFTS),
        operating_points=paths.OPERATING_POINTS,
    output:
        paths.DECISIONS,
    log:
        "logs/decide_variant/{model}/{scheme}.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=15,
    params:
        code=code("decide_variant"),
        shifts=SHIFTS,
        limits=config["report"]["limits"],
        settings=settings.decisions(config),
    script:
        "../scripts/decide_variant.py"


rule judge_schemes:
    input:
        of_variants(RESAMPLED),
    output:
        paths.SHIPPING.format(reports=REPORTS),
    log:
        f"logs/{REPORTS}/judge_schemes.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=10,
    params:
        code=code("judge_schemes"),
        variants=contents.variants_of(config),
        settings=settings.shipping(config),
    script:
        "../scripts/judge_schemes.py"


rule pick_examples:
    input:
        images=inputs.all_image_folders(config),
        questions=expand(paths.QUESTIONS, dataset=DATASETS),
        scores=of_variants(paths.SCORES),
        decisions=of_variants(paths.DECISIONS),
        features=inputs.features_of_variants(config),
    output:
        paths.EXAMPLES.format(reports=REPORTS),
    log:
        f"logs/{REPORTS}/pick_examples.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=15,
    params:
        code=code("pick_examples"),
        variants=contents.variants_of(config),
        datasets=DATASETS,
        settings=settings.examples(config),
    script:
        "../scripts/pick_examples.py"


rule build_page:
    input:
        metrics=of_variants(paths.METRICS),
        curves=of_variants(paths.CURVES),
        scores=of_variants(paths.SCORES),
        checkpoints=of_variants(paths.CHECKPOINT),
        features=inputs.features_of_variants(config),
        questions=expand(paths.QUESTIONS, dataset=DATASETS),
        comparisons=paths.COMPARISONS.format(reports=REPORTS),
        examples=paths.EXAMPLES.format(reports=REPORTS),
        decisions=f"{REPORTS}/tables/decisions.csv",
        shipping=f"{REPORTS}/tables/shipping.csv",
        sizes=f"{REPORTS}/tables/sizes.csv",
        data=f"{REPORTS}/tables/data.csv",
        figures=[figure.files(REPORTS)["png"] for figure in figures_of(config)],
        fairness=f"{REPORTS}/tables/fairness.csv" if config["evaluation"]["groups"] else [],
        shares=f"{REPORTS}/tables/published_importance.csv" if has_published_shares(config) else [],
        published=[f"{REPORTS}/tables/published.csv", PUBLISHED] if is_in_the_paper(config) else [],
    output:
        report(
            paths.PAGE.format(reports=REPORTS),
            caption="../report/index.rst",
            category="Page",
            labels={"page": "The page to decide from"},
        ),
    log:
        f"logs/{REPORTS}/index.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=5,
    params:
        code=code("build_page"),
        variants=contents.variants_of(config),
        datasets=DATASETS,
        captions=FIGURE_CAPTIONS,
        study=settings.shown_config(config),
        words=settings.words(config),
        workflow={"snakemake": snakemake_version},
    script:
        "../scripts/build_page.py"
