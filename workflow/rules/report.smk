# A rule for each figure and table in `quantrust/report/contents.py`, so that one is made without the others.
for figure in FIGURES:

    rule:
        name:
            figure.rule
        input:
            **inputs_of(figure, config, PUBLISHED),
        output:
            **shown(figure),
        log:
            f"logs/{REPORTS}/{figure.name}.log",
        conda:
            "../../envs/evaluation.yaml"
        threads: 1
        resources:
            mem_mb=memory(1000),
            runtime=5,
        params:
            code=[code("plot_figure"), *digests.entry_code(config, figure.dotted_module)],
            module=figure.dotted_module,
            settings=figure.settings(config),
            words=settings.words(config),
        script:
            "../scripts/plot_figure.py"


for table in TABLES:

    rule:
        name:
            table.rule
        input:
            **inputs_of(table, config, PUBLISHED),
        output:
            **shown(table),
        log:
            f"logs/{REPORTS}/{table.name}.log",
        conda:
            "../../envs/evaluation.yaml"
        threads: 1
        resources:
            mem_mb=memory(1000),
            runtime=5,
        params:
            code=[code("write_table"), *digests.entry_code(config, table.dotted_module)],
            module=table.dotted_module,
            settings=table.settings(config),
            words=settings.words(config),
        script:
            "../scripts/write_table.py"
