# Model folders: checked, with the processor and chat template of the config; and, as targets of their own, the training
# that made the embedded ones.


rule prepare_model:
    input:
        files=of(inputs.model_files),
        chat_template=of(inputs.chat_template),
    output:
        directory(paths.MODEL),
    log:
        "logs/prepare_model/{model}.log",
    wildcard_constraints:
        model=one_of(contents.models_with(config, "source")),
    # What is wrong between a model and its questions is found before anything long runs.
    priority: inputs.QUESTIONS_FIRST
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        code=code("prepare_model"),
        family_code=of(digests.family_code),
        source=lambda wildcards: config["models"][wildcards.model]["source"],
        family=lambda wildcards: config["models"][wildcards.model]["family"],
        processor=lambda wildcards: config["models"][wildcards.model].get("processor"),
    script:
        "../scripts/prepare_model.py"


rule train_model:
    output:
        directory(paths.TRAINED),
    log:
        "logs/train_model/{model}.log",
    benchmark:
        "benchmarks/runs/train_model/{model}.tsv"
    wildcard_constraints:
        model=one_of(contents.models_with(config, "training")),
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(6000),
        runtime=240,
    params:
        code=code("train_model"),
        family_code=of(digests.family_code),
        settings=lambda wildcards: config["models"][wildcards.model]["training"],
    script:
        "../scripts/train_model.py"


rule stress_model:
    input:
        of(inputs.stressed_model),
    output:
        directory(paths.MODEL),
    log:
        "logs/stress_model/{model}.log",
    wildcard_constraints:
        model=one_of(contents.models_with(config, "stress")),
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=10,
    params:
        code=code("stress_model"),
        family_code=of(digests.family_code),
        settings=of(settings.stress),
        seed=config["seed"],
    script:
        "../scripts/stress_model.py"
