# Thresholds that carry a guarantee, and how often it is broken where it holds and where it does not.


rule certify_variant:
    input:
        scores="data/scores/{model}/{scheme}.parquet",
        mixtures=expand("data/mixtures/{dataset}.parquet", dataset=STUDY["shifts"]),
    output:
        "data/certification/{model}/{scheme}.parquet",
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
        shifts=STUDY["shifts"],
        settings=certification_settings(),
    script:
        "../scripts/certify_variant.py"
