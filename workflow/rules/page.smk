# The page, and what only the page needs: a grid of risk limits, what schemes keep of the unquantized model, examples.


rule decide_variant:
    input:
        scores="data/scores/{model}/{scheme}.parquet",
        mixtures=expand("data/mixtures/{dataset}.parquet", dataset=STUDY["shifts"]),
    output:
        "data/decisions/{model}/{scheme}.parquet",
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
        shifts=STUDY["shifts"],
        limits=config["report"]["limits"],
        settings=decision_settings(),
    script:
        "../scripts/decide_variant.py"


rule judge_schemes:
    input:
        scores=of_variants("data/scores/{model}/{scheme}.parquet"),
        mixtures=expand("data/mixtures/{dataset}.parquet", dataset=STUDY["shifts"]),
    output:
        f"{STUDY_DATA}/shipping.parquet",
    log:
        f"logs/{REPORTS}/judge_schemes.log",
    benchmark:
        f"benchmarks/runs/judge_schemes/{REPORTS}.tsv"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        code=code("judge_schemes"),
        variants=compared_variants(),
        shifts=STUDY["shifts"],
        settings=shipping_settings(),
    script:
        "../scripts/judge_schemes.py"


rule pick_examples:
    input:
        unpack(images_of_datasets),
        questions=expand("data/questions/{dataset}.parquet", dataset=DATASETS),
        scores=of_variants("data/scores/{model}/{scheme}.parquet"),
        decisions=of_variants("data/decisions/{model}/{scheme}.parquet"),
        features=features_of_variants(),
    output:
        f"{STUDY_DATA}/examples.parquet",
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
        variants=compared_variants(),
        datasets=DATASETS,
        settings=example_settings(),
    script:
        "../scripts/pick_examples.py"


rule build_page:
    input:
        metrics=of_variants("data/metrics/{model}/{scheme}.parquet"),
        curves=of_variants("data/curves/{model}/{scheme}.parquet"),
        scores=of_variants("data/scores/{model}/{scheme}.parquet"),
        checkpoints=of_variants("data/checkpoints/{model}/{scheme}"),
        features=features_of_variants(),
        questions=expand("data/questions/{dataset}.parquet", dataset=DATASETS),
        comparisons=f"{STUDY_DATA}/comparisons.parquet",
        examples=f"{STUDY_DATA}/examples.parquet",
        decisions=f"{REPORTS}/tables/decisions.csv",
        shipping=f"{REPORTS}/tables/shipping.csv",
        sizes=f"{REPORTS}/tables/sizes.csv",
        data=f"{REPORTS}/tables/data.csv",
        figures=[figure.files(REPORTS)["png"] for figure in figures_of(config)],
        published=[f"{REPORTS}/tables/published.csv", PUBLISHED] if is_in_the_paper(config) else [],
    output:
        report(
            f"{REPORTS}/index.html",
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
        variants=compared_variants(),
        datasets=DATASETS,
        captions=figure_captions(),
        study=shown_config(),
        workflow={"snakemake": snakemake_version},
    script:
        "../scripts/build_page.py"
