# What answers or abstains: a variant with processor, estimator and operating points. No study makes one by itself.


rule bundle_variant:
    input:
        checkpoint=paths.CHECKPOINT,
        features=expand(paths.FEATURES, dataset=ID_DATASET, allow_missing=True),
        operating_points=paths.OPERATING_POINTS,
        metrics=paths.METRICS,
        scores=paths.SCORES,
        selector=paths.SELECTOR if has_learned([config["bundles"]["estimator"]]) else [],
    output:
        directory(paths.BUNDLE),
    log:
        "logs/bundle_variant/{model}/{scheme}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        code=code("bundle_variant"),
        choice=of(settings.bundle),
    script:
        "../scripts/bundle_variant.py"
