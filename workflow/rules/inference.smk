# Answers of a variant to a dataset, and all that confidence estimators need of them.


rule dump_features:
    input:
        checkpoint="data/checkpoints/{model}/{scheme}",
        questions="data/questions/{dataset}.parquet",
        # The questions table names the images in these folders.
        images=images_of,
    output:
        "data/features/{model}/{scheme}/{dataset}.parquet",
    log:
        "logs/dump_features/{model}/{scheme}/{dataset}.log",
    benchmark:
        "benchmarks/runs/dump_features/{model}/{scheme}/{dataset}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        gpu=GPUS,
        mem_mb=memory(4000),
        runtime=120,
    params:
        code=code("dump_features"),
        family_code=family_code,
        settings=features_settings,
    script:
        "../scripts/dump_features.py"
