# Downloads: never a part of a study, started by `snakemake download` or by the name of one record.
import time


rule fetch_download:
    output:
        paths.DOWNLOAD,
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
        settings=of(settings.download),
        lock=lambda wildcards: f"config/lock/{wildcards.download}.json",
        # Another value each time: who asks for a record that is there wants the files behind it checked.
        asked=time.time_ns(),
    script:
        "../scripts/fetch_download.py"
