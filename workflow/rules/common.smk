# What only Snakemake can do: it checks the config, and calls what `quantrust.study` says of jobs with their wildcards.
import inspect
import re

from snakemake import __version__ as snakemake_version

from quantrust.confidence.catalogue import estimator_module, has_learned
from quantrust.digest import source_digest
from quantrust.quantization.scheme import UNQUANTIZED
from quantrust.report.contents import (
    FIGURES,
    REFERENCE,
    TABLES,
    figures_of,
    has_published_shares,
    inputs_of,
    is_in_the_paper,
    learning_estimators,
)
from quantrust.study import asked, cells, contents, digests, dumps, inputs, jobs, paths, settings

# Snakemake's own `checkpoints` keeps its name.
from quantrust.study import checkpoints as made_checkpoints
from quantrust.study.config import study_config
from quantrust.study.digests import script_code as code
from quantrust.study.places import from_here

try:
    # In its place, because captions and jobs read this very object.
    config.update(study_config(config))
    FIGURE_CAPTIONS = settings.figure_captions(config)
except QuantrustError as error:
    stop(error)

ID_DATASET, SHIFTS = config["study"]["id_dataset"], config["study"]["shifts"]
DATASETS = contents.datasets_of(config)
REPORTS = config["report"]["folder"]
# With {model} and {scheme} left in it.
RESAMPLED = expand(paths.RESAMPLED, reports=REPORTS, allow_missing=True)[0]
PUBLISHED = from_here(REFERENCE)
SWEPT_SCHEMES = inputs.swept_schemes(config)
LABELS = config["selector"]["learning_curve"]
EXTERNAL_SCHEMES = contents.external_schemes(config)
SHARDED = config["features"]["shards"] > 1
WORKERS = config["features"]["workers"]
ACTIVATIONS = settings.activation_memory(config)
# How many GPUs a job takes that runs a model.
GPUS = 1 if config["compute"]["device"] == "cuda" else 0


def one_of(names):
    """Pattern of a wildcard that is one of these names; of none, a pattern that nothing matches."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    model=one_of(config["models"]),
    scheme="[a-z0-9-]+",
    dataset=one_of(contents.dumped_datasets(config)),


def of(function):
    """A function of the study as Snakemake calls it: it takes those of a job's wildcards that it names."""
    names = [*inspect.signature(function).parameters][1:]

    def of_job(wildcards):
        try:
            return function(config, *(getattr(wildcards, name) for name in names))
        except QuantrustError as error:
            stop(error)

    return of_job


def of_variants(pattern):
    """A path for every variant of the study, models in their order, then schemes in theirs."""
    return contents.of_variants(config, pattern)


def memory(mb):
    """Memory of a job in MB: so much at the first attempt, and as much again at every further one."""
    return lambda wildcards, attempt: attempt * mb


def shown(entry):
    """The files of a figure or table, one of them marked for the report that Snakemake writes."""
    files = entry.files(REPORTS)
    marks = {"caption": f"../report/{entry.name}.rst", "category": entry.category, "labels": {entry.kind: entry.label}}
    return files | {entry.shown: report(files[entry.shown], **marks)}
