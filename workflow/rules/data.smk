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
        mem_mb=1000,
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
        mem_mb=1000,
        runtime=5,
    params:
        code=code("select_adversarial"),
        questions=config["datasets"]["scenes-language"]["questions"],
        wrong_share=config["datasets"]["scenes-language"]["wrong_share"],
        seed=config["datasets"]["scenes-language"]["seed"],
    script:
        "../scripts/select_adversarial.py"


rule build_questions:
    input:
        "data/embedded/{dataset}",
    output:
        "data/questions/{dataset}.parquet",
    log:
        "logs/build_questions/{dataset}.log",
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=5,
    params:
        code=code("build_questions"),
        splits=official_files,
    script:
        "../scripts/build_questions.py"
