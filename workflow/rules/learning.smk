# Selectors trained on parts of dev: what they gain for the labels that they cost (selector.learning_curve).


rule train_on_labels:
    input:
        expand(paths.FEATURES, dataset=ID_DATASET, allow_missing=True),
    output:
        directory(paths.LABELS_SELECTOR),
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
        settings=settings.selector(config),
    script:
        "../scripts/train_selector.py"


rule score_on_labels:
    input:
        features=expand(paths.FEATURES, dataset=DATASETS, allow_missing=True),
        selector=paths.LABELS_SELECTOR,
    output:
        paths.LABELS_SCORES,
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
        scores=expand(paths.LABELS_SCORES, labels=LABELS, allow_missing=True),
        mixtures=expand(paths.MIXTURES, dataset=SHIFTS),
    output:
        paths.LEARNING_CURVE,
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
        shifts=SHIFTS,
        settings=settings.learning(config),
    script:
        "../scripts/evaluate_learning.py"
