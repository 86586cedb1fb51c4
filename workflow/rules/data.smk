# Datasets in their official formats, and the questions tables that are read from them.
from quantrust.embedded.catalogue import written_datasets


rule write_dataset:
    output:
        directory(paths.EMBEDDED_DATASET),
    log:
        "logs/write_dataset/{dataset}.log",
    benchmark:
        "benchmarks/runs/write_dataset/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(written_datasets()),
    priority: inputs.QUESTIONS_FIRST
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=10,
    params:
        code=code("write_dataset"),
        settings=of(settings.dataset),
    script:
        "../scripts/write_dataset.py"


rule select_adversarial:
    input:
        candidates=paths.EMBEDDED_DATASET.format(dataset=contents.CANDIDATES),
        features=inputs.features_of_candidates(config),
    output:
        directory(paths.EMBEDDED_DATASET.format(dataset=contents.LANGUAGE_SHIFT)),
    log:
        "logs/select_adversarial.log",
    priority: inputs.QUESTIONS_FIRST
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
        files=of(inputs.sources),
        split_file=of(inputs.split_file),
    output:
        paths.DIVISION,
    log:
        "logs/divide_dataset/{dataset}.log",
    wildcard_constraints:
        dataset=one_of(name for name in config["datasets"] if contents.is_divided(config, name)),
    priority: inputs.QUESTIONS_FIRST
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=10,
    params:
        code=code("divide_dataset"),
        format_code=of(digests.format_code),
        files=of(inputs.files_to_divide),
        division=of(settings.division),
    script:
        "../scripts/divide_dataset.py"


rule build_questions:
    input:
        of(inputs.sources),
        division=of(inputs.division),
    output:
        questions=paths.QUESTIONS,
        skipped=paths.SKIPPED,
    log:
        "logs/build_questions/{dataset}.log",
    priority: inputs.QUESTIONS_FIRST
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code("build_questions"),
        format_code=of(digests.format_code),
        task=of(inputs.task_of),
        task_code=of(digests.task_code),
        splits=of(inputs.official_files),
        on_bad_image=config["on_bad_image"],
        max_aspect_ratio=of(settings.max_aspect_ratio),
    script:
        "../scripts/build_questions.py"


rule build_question_groups:
    input:
        questions=paths.QUESTIONS,
        groups=of(inputs.group_file),
    output:
        paths.QUESTION_GROUPS,
    log:
        "logs/build_question_groups/{dataset}.log",
    wildcard_constraints:
        dataset=one_of(contents.datasets_with_groups(config)),
    # Before any model runs: what is wrong with a file of groups is said early.
    priority: 100
    conda:
        "../../envs/data.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=10,
    params:
        code=code("build_question_groups"),
        groupings=contents.brought_groupings(config),
    script:
        "../scripts/build_question_groups.py"
