# Calibration tables and quantized checkpoints.


rule build_calibration:
    input:
        # looked for when a study wants them: `snakemake download` may have to get them first
        unpack(of(inputs.calibration_files)),
        model=paths.MODEL,
    output:
        paths.CALIBRATION,
    log:
        "logs/build_calibration/{model}.log",
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=10,
    params:
        code=code("build_calibration"),
        family_code=of(digests.family_code),
        samples=config["calibration"]["samples"],
        source=settings.calibration_source(config),
        on_bad_image=config["on_bad_image"],
        seed=config["seed"],
    script:
        "../scripts/build_calibration.py"


# The job of a scheme goes on with others that the same run asks of the model, whose own jobs then find them. No byte
# depends on who made a checkpoint.
rule quantize_model:
    input:
        model=paths.MODEL,
        calibration=of(inputs.calibration_table),
        images=of(inputs.calibration_images),
    output:
        directory(paths.CHECKPOINT),
    log:
        "logs/quantize_model/{model}/{scheme}.log",
    benchmark:
        "benchmarks/runs/quantize_model/{model}/{scheme}.tsv"
    wildcard_constraints:
        scheme=f"(?!(?:{one_of(EXTERNAL_SCHEMES)})$)[a-z0-9-]+",
    priority: of(inputs.priority_of_checkpoint)
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **ACTIVATIONS,
        gpu=GPUS,
        mem_mb=memory(4000 + ACTIVATIONS.get("activations_mb", 0)),
        runtime=60,
    params:
        code=of(digests.quantization_code),
        given=of(made_checkpoints.checkpoint_given),
        made=paths.MADE_CHECKPOINT,
    script:
        "../scripts/quantize_model.py"


rule import_checkpoint:
    input:
        model=paths.MODEL,
        # a change of them is seen by their digests below, whatever their times
        files=ancient(of(inputs.external_files)),
    output:
        directory(paths.CHECKPOINT),
    log:
        "logs/import_checkpoint/{model}/{scheme}.log",
    wildcard_constraints:
        scheme=one_of(EXTERNAL_SCHEMES),
    # What is wrong with a folder of others is found before anything long runs.
    priority: inputs.QUESTIONS_FIRST
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        code=of(digests.external_code),
        bytes=of(digests.external_bytes),
        family_code=of(digests.family_code),
        folder=of(contents.external_folder),
    script:
        "../scripts/import_checkpoint.py"
