# Whether a model can be asked a dataset's questions. Answers of a variant to a dataset, and all that confidence
# estimators need of them: by one job, or by shards of it.


rule check_questions:
    input:
        files=of(inputs.question_files),
        model=paths.MODEL,
    output:
        paths.CHECKED,
    log:
        "logs/check_questions/{model}/{dataset}.log",
    # Before models are quantized, which no check depends on.
    priority: inputs.QUESTIONS_FIRST
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=code("check_questions"),
        family_code=of(digests.family_code),
        format_code=of(digests.format_code),
        splits=of(inputs.official_files),
        prompt=of(settings.prompt),
    script:
        "../scripts/check_questions.py"


# The job of a dataset goes on with others that the same run asks the variant, and then with other variants of the model.
# Their own jobs find what it made. No byte depends on who made it.
rule dump_features:
    input:
        checkpoint=paths.CHECKPOINT,
        questions=paths.QUESTIONS,
        # The questions table names the images in these folders.
        images=of(inputs.image_folders),
        checked=of(inputs.checked),
    output:
        paths.FEATURES,
    log:
        "logs/dump_features/{model}/{scheme}/{dataset}.log",
    benchmark:
        "benchmarks/runs/dump_features/{model}/{scheme}/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of([] if SHARDED else inputs.answered_datasets(config)),
    # So that jobs that run side by side are of different variants, and shifts find what the ID dataset's made.
    priority: of(inputs.priority_of)
    conda:
        "../../envs/torch.yaml"
    threads: 1 + WORKERS
    resources:
        gpu=GPUS,
        mem_mb=memory(4000),
        runtime=120,
    params:
        code=code("dump_features"),
        given=of(dumps.dump_given),
        made=paths.MADE_FEATURES,
    script:
        "../scripts/dump_features.py"


rule dump_matches:
    input:
        checkpoint=paths.CHECKPOINT,
        questions=paths.QUESTIONS,
        images=of(inputs.image_folders),
        checked=of(inputs.checked),
    output:
        paths.FEATURES,
    log:
        "logs/dump_matches/{model}/{scheme}/{dataset}.log",
    benchmark:
        "benchmarks/runs/dump_matches/{model}/{scheme}/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(inputs.matched_datasets(config)),
    conda:
        "../../envs/torch.yaml"
    threads: 1 + WORKERS
    resources:
        gpu=GPUS,
        mem_mb=memory(4000),
        runtime=120,
    params:
        code=code("dump_matches"),
        family_code=of(digests.family_code),
        task=of(inputs.task_of),
        task_code=of(digests.task_code),
        settings=of(settings.features),
    script:
        "../scripts/dump_matches.py"


rule dump_shard:
    input:
        checkpoint=paths.CHECKPOINT,
        questions=paths.QUESTIONS,
        images=of(inputs.image_folders),
        checked=of(inputs.checked),
    output:
        temp(paths.SHARD),
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
        code=code("dump_shard"),
        family_code=of(digests.family_code),
        task=of(inputs.task_of),
        task_code=of(digests.task_code),
        settings=of(settings.features),
    script:
        "../scripts/dump_shard.py"


rule gather_features:
    input:
        shards=of(inputs.shards),
        questions=paths.QUESTIONS,
    output:
        paths.FEATURES,
    log:
        "logs/gather_features/{model}/{scheme}/{dataset}.log",
    wildcard_constraints:
        dataset=one_of(inputs.answered_datasets(config) if SHARDED else []),
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        code=code("gather_features"),
        settings=of(settings.features),
    script:
        "../scripts/gather_features.py"


# The job of a cell goes on with other cells that nobody has made yet, whose own jobs then find them: thus some processes
# make a whole grid. No byte depends on who made a cell.
rule answer_cell:
    input:
        unpack(of(cells.cell_files)),
        checked=of(inputs.checked_in_distribution),
    output:
        features=paths.FEATURES.replace("{dataset}", ID_DATASET),
        record=paths.CELL,
    log:
        "logs/answer_cell/{model}/{scheme}.log",
    benchmark:
        "benchmarks/runs/answer_cell/{model}/{scheme}.tsv"
    wildcard_constraints:
        scheme=one_of(SWEPT_SCHEMES),
    conda:
        "../../envs/torch.yaml"
    threads: 1 + WORKERS
    resources:
        **ACTIVATIONS,
        gpu=GPUS,
        mem_mb=memory(6000 + ACTIVATIONS.get("activations_mb", 0)),
        runtime=180,
    params:
        code=code("answer_cell"),
        given=of(cells.cell_given),
        made=paths.MADE_CELL,
    script:
        "../scripts/answer_cell.py"


# A shift is dumped from the cell's checkpoint, as ever.
ruleorder: answer_cell > dump_features
