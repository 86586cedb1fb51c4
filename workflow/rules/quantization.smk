# Calibration tables and quantized checkpoints.


rule build_calibration:
    input:
        **calibration_files(),
        model="data/models/{model}",
    output:
        "data/calibration/{model}.parquet",
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
        family_code=family_code,
        samples=config["calibration"]["samples"],
        source=calibration_source(),
        on_bad_image=config["on_bad_image"],
        seed=config["seed"],
    script:
        "../scripts/build_calibration.py"


rule quantize_model:
    input:
        model="data/models/{model}",
        calibration=calibration_of,
        images=calibration_images,
    output:
        directory("data/checkpoints/{model}/{scheme}"),
    log:
        "logs/quantize_model/{model}/{scheme}.log",
    benchmark:
        "benchmarks/runs/quantize_model/{model}/{scheme}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        **ACTIVATIONS,
        gpu=GPUS,
        mem_mb=memory(4000 + ACTIVATIONS.get("activations_mb", 0)),
        runtime=60,
    params:
        code=quantization_code,
        family_code=family_code,
        table=scheme_table,
        device=config["compute"]["device"],
    script:
        "../scripts/quantize_model.py"
