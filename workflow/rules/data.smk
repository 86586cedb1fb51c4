# Datasets in their official formats, and the questions tables that are read from them.


rule write_dataset:
    output:
        directory("data/embedded/{dataset}"),
    log:
        "logs/write_dataset/{dataset}.log",
    benchmark:
        "benchmarks/runs/write_dataset/{dataset}.tsv"
    wildcard_constraints:
        dataset="scenes|scenes-multimodal|scenes-language-candidates",
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=10,
    params:
        code=code("write_dataset"),
        settings=dataset_settings,
    script:
        "../scripts/write_dataset.py"


rule select_adversarial:
    input:
        candidates=f"data/embedded/{CANDIDATES}",
        features=f"data/features/{config['datasets']['scenes-language']['adversary']}/{UNQUANTIZED}/{CANDIDATES}.parquet",
    output:
        directory("data/embedded/scenes-language"),
    log:
        "logs/select_adversarial.log",
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("select_adversarial"),
        questions=config["datasets"]["scenes-language"]["questions"],
        wrong_share=config["datasets"]["scenes-language"]["wrong_share"],
        seed=config["datasets"]["scenes-language"]["seed"],
    script:
        "../scripts/select_adversarial.py"


rule divide_dataset:
    input:
        files=sources_of,
        split_file=split_file_of,
    output:
        "data/splits/{dataset}.parquet",
    log:
        "logs/divide_dataset/{dataset}.log",
    wildcard_constraints:
        dataset=one_of(DIVIDED),
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=10,
    params:
        code=code("divide_dataset"),
        format_code=format_code,
        files=lambda wildcards: official_files(wildcards)["all"],
        division=division_settings,
    script:
        "../scripts/divide_dataset.py"


rule build_questions:
    input:
        sources_of,
        division=division_of,
    output:
        questions="data/questions/{dataset}.parquet",
        skipped="data/skipped/{dataset}.parquet",
    log:
        "logs/build_questions/{dataset}.log",
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code("build_questions"),
        format_code=format_code,
        task=task_name,
        task_code=task_code,
        splits=official_files,
        on_bad_image=config["on_bad_image"],
        max_aspect_ratio=max_aspect_ratio_of,
    script:
        "../scripts/build_questions.py"
