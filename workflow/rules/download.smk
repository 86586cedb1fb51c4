# Downloads: never a part of a study, started by `snakemake download` or by the name of one record.
import time


rule fetch_download:
    output:
        "data/downloads/{download}.json",
    log:
        "logs/fetch_download/{download}.log",
    wildcard_constraints:
        download=one_of(config["downloads"]),
    # Where jobs run elsewhere, there is often no network.
    localrule: True
    conda:
        "../../envs/download.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=1440,
    params:
        code=code("fetch_download"),
        # Only a plan reads how large it is.
        settings=lambda wildcards: {
            key: value for key, value in config["downloads"][wildcards.download].items() if key != "bytes"
        },
        lock=lambda wildcards: f"config/lock/{wildcards.download}.json",
        # Another value each time: who asks for a record that is there wants the files behind it checked.
        asked=time.time_ns(),
    script:
        "../scripts/fetch_download.py"
