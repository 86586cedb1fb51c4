# Mixtures of questions in and out of distribution, metrics and curves, kinds of question, comparisons.


rule build_mixtures:
    input:
        id_dataset=paths.QUESTIONS.format(dataset=ID_DATASET),
        shift=paths.QUESTIONS,
    output:
        paths.MIXTURES,
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
        scores=paths.ID_SCORES,
        mixtures=[],
    output:
        metrics=paths.ID_METRICS,
        curves=paths.ID_CURVES,
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
        settings=settings.evaluation(config),
    script:
        "../scripts/evaluate_variant.py"


rule evaluate_variant:
    input:
        scores=paths.SCORES,
        mixtures=expand(paths.MIXTURES, dataset=SHIFTS),
        begun=[
            paths.ID_METRICS,
            paths.ID_CURVES,
        ],
    output:
        metrics=paths.METRICS,
        curves=paths.CURVES,
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
        shifts=SHIFTS,
        settings=settings.evaluation(config),
    script:
        "../scripts/evaluate_variant.py"


rule break_down_in_distribution:
    input:
        scores=paths.ID_SCORES,
        mixtures=[],
    output:
        groups=paths.ID_GROUPS,
        bins=paths.ID_BINS,
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
        settings=settings.breakdown(config),
    script:
        "../scripts/break_down_variant.py"


rule break_down_variant:
    input:
        scores=paths.SCORES,
        mixtures=expand(paths.MIXTURES, dataset=SHIFTS),
        begun=[
            paths.ID_GROUPS,
            paths.ID_BINS,
        ],
    output:
        groups=paths.GROUPS,
        bins=paths.BINS,
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
        shifts=SHIFTS,
        settings=settings.breakdown(config),
    script:
        "../scripts/break_down_variant.py"


rule resample_variant:
    input:
        scores=paths.SCORES,
        mixtures=expand(paths.MIXTURES, dataset=SHIFTS),
    output:
        RESAMPLED,
    log:
        f"logs/{REPORTS}/resample_variant/{{model}}/{{scheme}}.log",
    benchmark:
        f"benchmarks/runs/resample_variant/{REPORTS}/{{model}}/{{scheme}}.tsv"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code("resample_variant"),
        shifts=SHIFTS,
        settings=settings.resampling(config),
    script:
        "../scripts/resample_variant.py"


rule compare_variants:
    input:
        of_variants(RESAMPLED),
    output:
        paths.COMPARISONS.format(reports=REPORTS),
    log:
        f"logs/{REPORTS}/compare_variants.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=10,
    params:
        code=code("compare_variants"),
        variants=contents.variants_of(config),
        settings=settings.comparison(config),
    script:
        "../scripts/compare_variants.py"


rule measure_drift:
    input:
        scores=of_variants(paths.SCORES),
        features=inputs.features_of_variants(config),
    output:
        paths.DRIFT.format(reports=REPORTS),
    log:
        f"logs/{REPORTS}/measure_drift.log",
    benchmark:
        f"benchmarks/runs/measure_drift/{REPORTS}.tsv"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        code=code("measure_drift"),
        variants=contents.variants_of(config),
        settings=settings.drift(config),
    script:
        "../scripts/measure_drift.py"


rule judge_groups:
    input:
        scores=of_variants(paths.SCORES),
        mixtures=expand(paths.MIXTURES, dataset=SHIFTS),
        groups=inputs.question_groups(config),
    output:
        paths.FAIRNESS.format(reports=REPORTS),
    log:
        f"logs/{REPORTS}/judge_groups.log",
    benchmark:
        f"benchmarks/runs/judge_groups/{REPORTS}.tsv"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code("judge_groups"),
        variants=contents.variants_of(config),
        shifts=SHIFTS,
        grouped=contents.datasets_with_groups(config),
        settings=settings.fairness(config),
    script:
        "../scripts/judge_groups.py"


rule weigh_components:
    input:
        scores=[paths.ID_SCORES.format(model=model, scheme=scheme) for model, scheme in contents.grid_variants(config)],
        checkpoints=inputs.checkpoints_of_grids(config),
    output:
        grid=paths.GRID.format(reports=REPORTS),
        importance=paths.IMPORTANCE.format(reports=REPORTS),
        interactions=paths.INTERACTIONS.format(reports=REPORTS),
        effects=paths.EFFECTS.format(reports=REPORTS),
    log:
        f"logs/{REPORTS}/weigh_components.log",
    benchmark:
        f"benchmarks/runs/weigh_components/{REPORTS}.tsv"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code("weigh_components"),
        variants=contents.grid_variants(config),
        settings=settings.components(config),
    script:
        "../scripts/weigh_components.py"
