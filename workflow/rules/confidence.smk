# Selectors and scores.


rule train_selector:
    input:
        expand(paths.FEATURES, dataset=ID_DATASET, allow_missing=True),
    output:
        directory(paths.SELECTOR),
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
        settings=settings.selector(config),
    script:
        "../scripts/train_selector.py"


# In distribution first and apart, so that what is asked about it alone waits for no shift.
rule score_in_distribution:
    input:
        features=expand(paths.FEATURES, dataset=ID_DATASET, allow_missing=True),
        selector=paths.SELECTOR if has_learned(config["study"]["estimators"]) else [],
    output:
        paths.ID_SCORES,
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
        estimator_code=digests.estimator_code(config),
        estimators=contents.scored_estimators(config),
    script:
        "../scripts/write_scores.py"


rule write_scores:
    input:
        begun=paths.ID_SCORES,
        features=expand(paths.FEATURES, dataset=SHIFTS, allow_missing=True),
        selector=paths.SELECTOR if has_learned(config["study"]["estimators"]) else [],
    output:
        paths.SCORES,
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
        estimator_code=digests.estimator_code(config),
        estimators=contents.scored_estimators(config),
    script:
        "../scripts/write_scores.py"
