# Figures and tables, a rule each, so that one is made without the others.


rule risk_coverage:
    input:
        curves=of_variants("data/curves/{model}/{scheme}.parquet"),
        metrics=of_variants("data/metrics/{model}/{scheme}.parquet"),
    output:
        pdf=report(
            f"{REPORTS}/risk_coverage.pdf",
            caption="../report/risk_coverage.rst",
            category="Figures",
        ),
        png=f"{REPORTS}/risk_coverage.png",
    log:
        f"logs/{REPORTS}/risk_coverage.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=5,
    params:
        code=code("plot_risk_coverage"),
        home=HOME,
        level=config["evaluation"]["confidence_level"],
    script:
        "../scripts/plot_risk_coverage.py"


rule mixtures:
    input:
        of_variants("data/metrics/{model}/{scheme}.parquet"),
    output:
        pdf=report(f"{REPORTS}/mixtures.pdf", caption="../report/mixtures.rst", category="Figures"),
        png=f"{REPORTS}/mixtures.png",
    log:
        f"logs/{REPORTS}/mixtures.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=5,
    params:
        code=code("plot_mixtures"),
        home=HOME,
        risk=config["report"]["risk"],
        level=config["evaluation"]["confidence_level"],
    script:
        "../scripts/plot_mixtures.py"


rule degradation:
    input:
        of_variants("data/metrics/{model}/{scheme}.parquet"),
    output:
        pdf=report(f"{REPORTS}/degradation.pdf", caption="../report/degradation.rst", category="Figures"),
        png=f"{REPORTS}/degradation.png",
    log:
        f"logs/{REPORTS}/degradation.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=5,
    params:
        code=code("plot_degradation"),
        home=HOME,
        risk=config["report"]["risk"],
        level=config["evaluation"]["confidence_level"],
    script:
        "../scripts/plot_degradation.py"


rule tabulate_accuracy:
    input:
        of_variants("data/metrics/{model}/{scheme}.parquet"),
    output:
        report(f"{REPORTS}/tables/accuracy.csv", caption="../report/accuracy.rst", category="Tables"),
    log:
        f"logs/{REPORTS}/accuracy.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=5,
    params:
        code=code("tabulate_accuracy"),
        home=HOME,
    script:
        "../scripts/tabulate_accuracy.py"


rule tabulate_reliability:
    input:
        of_variants("data/metrics/{model}/{scheme}.parquet"),
    output:
        report(
            f"{REPORTS}/tables/reliability.csv",
            caption="../report/reliability.rst",
            category="Tables",
        ),
    log:
        f"logs/{REPORTS}/reliability.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=5,
    params:
        code=code("tabulate_reliability"),
        home=HOME,
        risks=config["evaluation"]["risks"],
    script:
        "../scripts/tabulate_reliability.py"


rule tabulate_sizes:
    input:
        of_variants("data/checkpoints/{model}/{scheme}"),
    output:
        report(f"{REPORTS}/tables/sizes.csv", caption="../report/sizes.rst", category="Tables"),
    log:
        f"logs/{REPORTS}/sizes.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=5,
    params:
        code=code("tabulate_sizes"),
    script:
        "../scripts/tabulate_sizes.py"
