# Selectors and scores.


rule train_selector:
    input:
        f"data/features/{{model}}/{{scheme}}/{ID_DATASET}.parquet",
    output:
        directory("data/selectors/{model}/{scheme}"),
    log:
        "logs/train_selector/{model}/{scheme}.log",
    benchmark:
        "benchmarks/runs/train_selector/{model}/{scheme}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        code=code("train_selector"),
        settings=selector_settings(),
    script:
        "../scripts/train_selector.py"


# In distribution first and apart, so that what is asked about it alone waits for no shift.
rule score_in_distribution:
    input:
        features=[f"data/features/{{model}}/{{scheme}}/{ID_DATASET}.parquet"],
        selector="data/selectors/{model}/{scheme}" if has_learned(STUDY["estimators"]) else [],
    output:
        "data/in_distribution/scores/{model}/{scheme}.parquet",
    log:
        "logs/score_in_distribution/{model}/{scheme}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=15,
    params:
        code=code("write_scores"),
        estimator_code=estimator_code(),
        estimators=scored_estimators(),
    script:
        "../scripts/write_scores.py"


rule write_scores:
    input:
        begun="data/in_distribution/scores/{model}/{scheme}.parquet",
        features=expand("data/features/{{model}}/{{scheme}}/{dataset}.parquet", dataset=STUDY["shifts"]),
        selector="data/selectors/{model}/{scheme}" if has_learned(STUDY["estimators"]) else [],
    output:
        "data/scores/{model}/{scheme}.parquet",
    log:
        "logs/write_scores/{model}/{scheme}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=15,
    params:
        code=code("write_scores"),
        estimator_code=estimator_code(),
        estimators=scored_estimators(),
    script:
        "../scripts/write_scores.py"
