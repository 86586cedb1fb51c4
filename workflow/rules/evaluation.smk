# Mixtures of questions in and out of distribution, metrics and curves, kinds of question, comparisons.


rule build_mixtures:
    input:
        id_dataset=f"data/questions/{ID_DATASET}.parquet",
        shift="data/questions/{dataset}.parquet",
    output:
        "data/mixtures/{dataset}.parquet",
    log:
        "logs/build_mixtures/{dataset}.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("build_mixtures"),
        id_shares=config["evaluation"]["id_shares"],
        seed=config["seed"],
    script:
        "../scripts/build_mixtures.py"


rule evaluate_in_distribution:
    input:
        scores="data/in_distribution/scores/{model}/{scheme}.parquet",
        mixtures=[],
    output:
        metrics="data/in_distribution/metrics/{model}/{scheme}.parquet",
        curves="data/in_distribution/curves/{model}/{scheme}.parquet",
    log:
        "logs/evaluate_in_distribution/{model}/{scheme}.log",
    benchmark:
        "benchmarks/runs/evaluate_in_distribution/{model}/{scheme}.tsv"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        code=code("evaluate_variant"),
        shifts=[],
        settings=evaluation_settings(),
    script:
        "../scripts/evaluate_variant.py"


rule evaluate_variant:
    input:
        scores="data/scores/{model}/{scheme}.parquet",
        mixtures=expand("data/mixtures/{dataset}.parquet", dataset=STUDY["shifts"]),
        begun=[
            "data/in_distribution/metrics/{model}/{scheme}.parquet",
            "data/in_distribution/curves/{model}/{scheme}.parquet",
        ],
    output:
        metrics="data/metrics/{model}/{scheme}.parquet",
        curves="data/curves/{model}/{scheme}.parquet",
    log:
        "logs/evaluate_variant/{model}/{scheme}.log",
    benchmark:
        "benchmarks/runs/evaluate_variant/{model}/{scheme}.tsv"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        code=code("evaluate_variant"),
        shifts=STUDY["shifts"],
        settings=evaluation_settings(),
    script:
        "../scripts/evaluate_variant.py"


rule break_down_in_distribution:
    input:
        scores="data/in_distribution/scores/{model}/{scheme}.parquet",
        mixtures=[],
    output:
        groups="data/in_distribution/groups/{model}/{scheme}.parquet",
        bins="data/in_distribution/bins/{model}/{scheme}.parquet",
    log:
        "logs/break_down_in_distribution/{model}/{scheme}.log",
    benchmark:
        "benchmarks/runs/break_down_in_distribution/{model}/{scheme}.tsv"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        code=code("break_down_variant"),
        shifts=[],
        settings=breakdown_settings(),
    script:
        "../scripts/break_down_variant.py"


rule break_down_variant:
    input:
        scores="data/scores/{model}/{scheme}.parquet",
        mixtures=expand("data/mixtures/{dataset}.parquet", dataset=STUDY["shifts"]),
        begun=[
            "data/in_distribution/groups/{model}/{scheme}.parquet",
            "data/in_distribution/bins/{model}/{scheme}.parquet",
        ],
    output:
        groups="data/groups/{model}/{scheme}.parquet",
        bins="data/bins/{model}/{scheme}.parquet",
    log:
        "logs/break_down_variant/{model}/{scheme}.log",
    benchmark:
        "benchmarks/runs/break_down_variant/{model}/{scheme}.tsv"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        code=code("break_down_variant"),
        shifts=STUDY["shifts"],
        settings=breakdown_settings(),
    script:
        "../scripts/break_down_variant.py"


rule compare_variants:
    input:
        scores=of_variants("data/scores/{model}/{scheme}.parquet"),
        mixtures=expand("data/mixtures/{dataset}.parquet", dataset=STUDY["shifts"]),
    output:
        f"{STUDY_DATA}/comparisons.parquet",
    log:
        f"logs/{REPORTS}/compare_variants.log",
    benchmark:
        f"benchmarks/runs/compare_variants/{REPORTS}.tsv"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code("compare_variants"),
        variants=compared_variants(),
        shifts=STUDY["shifts"],
        settings=comparison_settings(),
    script:
        "../scripts/compare_variants.py"
