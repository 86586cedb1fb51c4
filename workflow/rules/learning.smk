# Selectors trained on parts of dev: what they gain for the labels that they cost (selector.learning_curve).


rule train_on_labels:
    input:
        f"data/features/{{model}}/{{scheme}}/{ID_DATASET}.parquet",
    output:
        directory("data/learning/selectors/{model}/{scheme}/{labels}"),
    log:
        "logs/train_on_labels/{model}/{scheme}/{labels}.log",
    benchmark:
        "benchmarks/runs/train_on_labels/{model}/{scheme}/{labels}.tsv"
    wildcard_constraints:
        labels="[0-9]+",
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


rule score_on_labels:
    input:
        features=expand("data/features/{{model}}/{{scheme}}/{dataset}.parquet", dataset=DATASETS),
        selector="data/learning/selectors/{model}/{scheme}/{labels}",
    output:
        "data/learning/scores/{model}/{scheme}/{labels}.parquet",
    log:
        "logs/score_on_labels/{model}/{scheme}/{labels}.log",
    wildcard_constraints:
        labels="[0-9]+",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=15,
    params:
        code=code("write_scores"),
        estimator_code=[source_digest(estimator_module("maxprob"))],
        estimators=["maxprob", *learning_estimators(config)],
    script:
        "../scripts/write_scores.py"


rule evaluate_learning:
    input:
        scores=expand("data/learning/scores/{{model}}/{{scheme}}/{labels}.parquet", labels=LABELS),
        mixtures=expand("data/mixtures/{dataset}.parquet", dataset=STUDY["shifts"]),
    output:
        "data/learning/curves/{model}/{scheme}.parquet",
    log:
        "logs/evaluate_learning/{model}/{scheme}.log",
    benchmark:
        "benchmarks/runs/evaluate_learning/{model}/{scheme}.tsv"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        code=code("evaluate_learning"),
        labels=LABELS,
        shifts=STUDY["shifts"],
        settings=learning_settings(),
    script:
        "../scripts/evaluate_learning.py"
