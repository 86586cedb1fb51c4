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
