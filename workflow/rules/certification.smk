# Thresholds that carry a guarantee, and how often it is broken where it holds and where it does not.


rule certify_variant:
    input:
        scores=paths.SCORES,
        mixtures=expand(paths.MIXTURES, dataset=SHIFTS),
    output:
        paths.CERTIFICATION,
    log:
        "logs/certify_variant/{model}/{scheme}.log",
    benchmark:
        "benchmarks/runs/certify_variant/{model}/{scheme}.tsv"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        code=code("certify_variant"),
        shifts=SHIFTS,
        settings=settings.certification(config),
    script:
        "../scripts/certify_variant.py"


# What ships: certificates on all ID test images, which hold together for everything that the config says may ship.
rule set_operating_points:
    input:
        scores=paths.SCORES,
        mixtures=expand(paths.MIXTURES, dataset=SHIFTS),
        # They say on what the variant answered.
        features=expand(paths.FEATURES, dataset=ID_DATASET, allow_missing=True),
    output:
        paths.OPERATING_POINTS,
    log:
        "logs/set_operating_points/{model}/{scheme}.log",
    benchmark:
        "benchmarks/runs/set_operating_points/{model}/{scheme}.tsv"
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=15,
    params:
        code=code("set_operating_points"),
        shifts=SHIFTS,
        settings=of(settings.operating_points),
    script:
        "../scripts/set_operating_points.py"
