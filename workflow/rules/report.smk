# Figures and tables, a rule each, so that one is made without the others.


rule risk_coverage:
    input:
        curves=of_variants("data/in_distribution/curves/{model}/{scheme}.parquet"),
        metrics=of_variants("data/in_distribution/metrics/{model}/{scheme}.parquet"),
    output:
        pdf=f"{REPORTS}/risk_coverage.pdf",
        png=report(
            f"{REPORTS}/risk_coverage.png",
            caption="../report/risk_coverage.rst",
            category="Figures",
            labels={"figure": "Risk and coverage"},
        ),
    log:
        f"logs/{REPORTS}/risk_coverage.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("plot_risk_coverage"),
        id_dataset=ID_DATASET,
        risks=config["report"]["risks"],
        level=config["evaluation"]["confidence_level"],
    script:
        "../scripts/plot_risk_coverage.py"


rule mixtures:
    input:
        of_variants("data/metrics/{model}/{scheme}.parquet"),
    output:
        pdf=f"{REPORTS}/mixtures.pdf",
        png=report(
            f"{REPORTS}/mixtures.png",
            caption="../report/mixtures.rst",
            category="Figures",
            labels={"figure": "Mixtures with shifted questions"},
        ),
    log:
        f"logs/{REPORTS}/mixtures.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("plot_mixtures"),
        id_dataset=ID_DATASET,
        risks=config["report"]["risks"],
        level=config["evaluation"]["confidence_level"],
    script:
        "../scripts/plot_mixtures.py"


rule efficiency:
    input:
        metrics=of_variants("data/in_distribution/metrics/{model}/{scheme}.parquet"),
        sizes=f"{REPORTS}/tables/sizes.csv",
    output:
        pdf=f"{REPORTS}/efficiency.pdf",
        png=report(
            f"{REPORTS}/efficiency.png",
            caption="../report/efficiency.rst",
            category="Figures",
            labels={"figure": "Efficiency and reliability"},
        ),
    log:
        f"logs/{REPORTS}/efficiency.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("plot_efficiency"),
        id_dataset=ID_DATASET,
        risks=config["report"]["risks"],
        level=config["evaluation"]["confidence_level"],
    script:
        "../scripts/plot_efficiency.py"


rule degradation:
    input:
        of_variants("data/in_distribution/metrics/{model}/{scheme}.parquet"),
    output:
        pdf=f"{REPORTS}/degradation.pdf",
        png=report(
            f"{REPORTS}/degradation.png",
            caption="../report/degradation.rst",
            category="Figures",
            labels={"figure": "Degradation by bits"},
        ),
    log:
        f"logs/{REPORTS}/degradation.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("plot_degradation"),
        id_dataset=ID_DATASET,
        risks=config["report"]["risks"],
        level=config["evaluation"]["confidence_level"],
    script:
        "../scripts/plot_degradation.py"


rule reliability_diagrams:
    input:
        of_variants("data/in_distribution/bins/{model}/{scheme}.parquet"),
    output:
        pdf=f"{REPORTS}/reliability_diagrams.pdf",
        png=report(
            f"{REPORTS}/reliability_diagrams.png",
            caption="../report/reliability_diagrams.rst",
            category="Figures",
            labels={"figure": "Reliability diagrams"},
        ),
    log:
        f"logs/{REPORTS}/reliability_diagrams.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("plot_reliability_diagrams"),
        id_dataset=ID_DATASET,
        level=config["evaluation"]["confidence_level"],
    script:
        "../scripts/plot_reliability_diagrams.py"


rule confidence_histograms:
    input:
        of_variants("data/in_distribution/bins/{model}/{scheme}.parquet"),
    output:
        pdf=f"{REPORTS}/confidence_histograms.pdf",
        png=report(
            f"{REPORTS}/confidence_histograms.png",
            caption="../report/confidence_histograms.rst",
            category="Figures",
            labels={"figure": "Confidence of right and wrong answers"},
        ),
    log:
        f"logs/{REPORTS}/confidence_histograms.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("plot_confidence_histograms"),
        id_dataset=ID_DATASET,
    script:
        "../scripts/plot_confidence_histograms.py"


rule selector_gain:
    input:
        f"{STUDY_DATA}/comparisons.parquet",
    output:
        pdf=f"{REPORTS}/selector_gain.pdf",
        png=report(
            f"{REPORTS}/selector_gain.png",
            caption="../report/selector_gain.rst",
            category="Figures",
            labels={"figure": "Selector gain"},
        ),
    log:
        f"logs/{REPORTS}/selector_gain.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("plot_selector_gain"),
        risks=config["report"]["risks"],
        level=config["evaluation"]["confidence_level"],
    script:
        "../scripts/plot_selector_gain.py"


rule learning_curve:
    input:
        of_variants("data/learning/curves/{model}/{scheme}.parquet"),
    output:
        pdf=f"{REPORTS}/learning_curve.pdf",
        png=report(
            f"{REPORTS}/learning_curve.png",
            caption="../report/learning_curve.rst",
            category="Figures",
            labels={"figure": "Labels and Selectors"},
        ),
    log:
        f"logs/{REPORTS}/learning_curve.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("plot_learning_curve"),
        risk=max(config["report"]["risks"]),
        level=config["evaluation"]["confidence_level"],
    script:
        "../scripts/plot_learning_curve.py"


rule answer_types:
    input:
        of_variants("data/groups/{model}/{scheme}.parquet"),
    output:
        pdf=f"{REPORTS}/answer_types.pdf",
        png=report(
            f"{REPORTS}/answer_types.png",
            caption="../report/answer_types.rst",
            category="Figures",
            labels={"figure": "By type of answer"},
        ),
    log:
        f"logs/{REPORTS}/answer_types.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("plot_groups"),
        grouping="answer_type",
        datasets=DATASETS,
        risk=max(config["report"]["risks"]),
        level=config["evaluation"]["confidence_level"],
    script:
        "../scripts/plot_groups.py"


rule question_kinds:
    input:
        of_variants("data/in_distribution/groups/{model}/{scheme}.parquet"),
    output:
        pdf=f"{REPORTS}/question_kinds.pdf",
        png=report(
            f"{REPORTS}/question_kinds.png",
            caption="../report/question_kinds.rst",
            category="Figures",
            labels={"figure": "By kind of question"},
        ),
    log:
        f"logs/{REPORTS}/question_kinds.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("plot_groups"),
        grouping="question_kind",
        datasets=[ID_DATASET],
        risk=max(config["report"]["risks"]),
        level=config["evaluation"]["confidence_level"],
    script:
        "../scripts/plot_groups.py"


rule tabulate_accuracy:
    input:
        of_variants("data/metrics/{model}/{scheme}.parquet"),
    output:
        report(
            f"{REPORTS}/tables/accuracy.csv",
            caption="../report/accuracy.rst",
            category="Tables",
            labels={"table": "Accuracy"},
        ),
    log:
        f"logs/{REPORTS}/accuracy.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("tabulate_accuracy"),
        id_dataset=ID_DATASET,
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
            labels={"table": "Reliability"},
        ),
    log:
        f"logs/{REPORTS}/reliability.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("tabulate_reliability"),
        id_dataset=ID_DATASET,
        risks=config["evaluation"]["risks"],
    script:
        "../scripts/tabulate_reliability.py"


rule tabulate_members:
    input:
        of_variants("data/metrics/{model}/{scheme}.parquet"),
    output:
        report(
            f"{REPORTS}/tables/members.csv",
            caption="../report/members.rst",
            category="Tables",
            labels={"table": "Another training of the Selector"},
        ),
    log:
        f"logs/{REPORTS}/members.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("tabulate_members"),
        id_dataset=ID_DATASET,
        risks=config["report"]["risks"],
    script:
        "../scripts/tabulate_members.py"


rule tabulate_sizes:
    input:
        of_variants("data/checkpoints/{model}/{scheme}"),
    output:
        report(
            f"{REPORTS}/tables/sizes.csv",
            caption="../report/sizes.rst",
            category="Tables",
            labels={"table": "Sizes"},
        ),
    log:
        f"logs/{REPORTS}/sizes.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("tabulate_sizes"),
    script:
        "../scripts/tabulate_sizes.py"


rule tabulate_quantization:
    input:
        metrics=of_variants("data/in_distribution/metrics/{model}/{scheme}.parquet"),
        comparisons=f"{STUDY_DATA}/comparisons.parquet",
        published=PUBLISHED,
    output:
        csv=report(
            f"{REPORTS}/tables/quantization.csv",
            caption="../report/quantization.rst",
            category="Tables",
            labels={"table": "Quantization under MaxProb (main table)"},
        ),
        markdown=f"{REPORTS}/tables/quantization.md",
        latex=f"{REPORTS}/tables/quantization.tex",
    log:
        f"logs/{REPORTS}/quantization.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("tabulate_paper"),
        settings=paper_table_settings(["maxprob"]),
    script:
        "../scripts/tabulate_paper.py"


rule tabulate_selector:
    input:
        metrics=of_variants("data/in_distribution/metrics/{model}/{scheme}.parquet"),
        comparisons=f"{STUDY_DATA}/comparisons.parquet",
        published=PUBLISHED,
    output:
        csv=report(
            f"{REPORTS}/tables/selector.csv",
            caption="../report/selector.rst",
            category="Tables",
            labels={"table": "MaxProb and Selector (main table)"},
        ),
        markdown=f"{REPORTS}/tables/selector.md",
        latex=f"{REPORTS}/tables/selector.tex",
    log:
        f"logs/{REPORTS}/selector.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("tabulate_paper"),
        settings=paper_table_settings(["maxprob", "selector"]),
    script:
        "../scripts/tabulate_paper.py"


rule tabulate_published:
    input:
        metrics=of_variants("data/in_distribution/metrics/{model}/{scheme}.parquet"),
        published=PUBLISHED,
    output:
        csv=report(
            f"{REPORTS}/tables/published.csv",
            caption="../report/published.rst",
            category="Tables",
            labels={"table": "Beside the paper's figures"},
        ),
        markdown=f"{REPORTS}/tables/published.md",
        latex=f"{REPORTS}/tables/published.tex",
    log:
        f"logs/{REPORTS}/published.log",
    conda:
        "../../envs/evaluation.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        code=code("tabulate_published"),
        id_dataset=ID_DATASET,
        level=config["evaluation"]["confidence_level"],
    script:
        "../scripts/tabulate_published.py"
