# Answers of a variant to a dataset, and all that confidence estimators need of them: by one job, or by shards of it.


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
    wildcard_constraints:
        dataset=one_of(DUMPED if SHARDS == 1 else []),
    conda:
        "../../envs/torch.yaml"
    threads: 1 + WORKERS
    resources:
        gpu=GPUS,
        mem_mb=memory(4000),
        runtime=120,
    params:
        code=code("dump_features"),
        family_code=family_code,
        task=task_name,
        task_code=task_code,
        settings=features_settings,
    script:
        "../scripts/dump_features.py"


rule dump_shard:
    input:
        checkpoint="data/checkpoints/{model}/{scheme}",
        questions="data/questions/{dataset}.parquet",
        images=images_of,
    output:
        temp("data/shards/{model}/{scheme}/{dataset}/{shard}-of-{shards}.parquet"),
    log:
        "logs/dump_shard/{model}/{scheme}/{dataset}/{shard}-of-{shards}.log",
    benchmark:
        "benchmarks/runs/dump_shard/{model}/{scheme}/{dataset}/{shard}-of-{shards}.tsv"
    wildcard_constraints:
        shard="[0-9]+",
        shards="[0-9]+",
    conda:
        "../../envs/torch.yaml"
    threads: 1 + WORKERS
    resources:
        gpu=GPUS,
        mem_mb=memory(4000),
        runtime=120,
    params:
        code=code("dump_features"),
        family_code=family_code,
        task=task_name,
        task_code=task_code,
        settings=features_settings,
    script:
        "../scripts/dump_features.py"


rule gather_features:
    input:
        shards=shards_of,
        questions="data/questions/{dataset}.parquet",
    output:
        "data/features/{model}/{scheme}/{dataset}.parquet",
    log:
        "logs/gather_features/{model}/{scheme}/{dataset}.log",
    wildcard_constraints:
        dataset=one_of(DUMPED if SHARDS > 1 else []),
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        code=code("gather_features"),
        settings=features_settings,
    script:
        "../scripts/gather_features.py"
