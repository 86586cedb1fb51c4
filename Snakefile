# The study: data -> models -> quantize -> features -> Selector -> scores -> evaluation -> reports.
from snakemake.utils import min_version

min_version("9.17")


include: "workflow/rules/start.smk"


configfile: CONFIG


report: "workflow/report/study.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/quantization.smk"
include: "workflow/rules/inference.smk"
include: "workflow/rules/confidence.smk"
include: "workflow/rules/learning.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/certification.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/page.smk"
include: "workflow/rules/bundles.smk"
include: "workflow/rules/download.smk"


onstart:
    # Snakemake's limit of jobs per second plants a timer for every job that ended, and each chooses among the waiting jobs
    # once a second until the run ends: half a core for hundreds of jobs. Only a cluster's queue needs such a limit. A
    # workflow that uses this one as a module wants these lines itself.
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None
    # So that jobs that run a model go on with what else this run asks of it.
    asked.note_asked(str(path) for job in workflow.dag.needrun_jobs() for path in job.output)


onsuccess:
    asked.forget_asked()


onerror:
    asked.forget_asked()


rule all:
    default_target: True
    input:
        jobs.study_artifacts(config),


# What the datasets, the calibration and the models of the study are downloaded from; `all` asks for none of it.
rule download:
    input:
        jobs.study_downloads(config),
