# What the rules share: the checked config, the digest of a script's code, and the files that a study consists of.
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

from jinja2 import StrictUndefined, Template
from snakemake import __version__ as snakemake_version

SCRIPTS = BASE / "workflow" / "scripts"
# What the paper prints. It lies with the workflow, wherever a study runs; relative, so that a moved study reruns nothing.
PUBLISHED = os.path.relpath(BASE / "config" / "paper_reference.yaml")
sys.path.insert(0, str(SCRIPTS))
# Jobs import the package that is digested here, even where the environment has that of another checkout installed.
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, [str(SCRIPTS), os.environ.get("PYTHONPATH")])))

from quantrust.study.config import CANDIDATES, EMBEDDED, ID_SPLITS, SHIFT_SPLIT, check_config, completed, splits_of
from quantrust.confidence.catalogue import LEARNED, estimator_module, has_learned
from quantrust.data.format import format_module, load_format
from quantrust.digest import code_digest, code_files, source_digest
from quantrust.errors import QuantrustError
from quantrust.models.companions import COMPANIONS, INDEX
from quantrust.models.processor_settings import max_aspect_ratio
from quantrust.named_modules import FAMILIES, METHODS
from quantrust.quantization.method_traits import method_traits
from quantrust.quantization.scheme import UNQUANTIZED, resolve_scheme
from quantrust.report.contents import (
    FIGURES,
    TABLES,
    figures_of,
    inputs_of,
    is_in_the_paper,
    learning_estimators,
    tables_of,
)
from quantrust.tasks.task import task_module

try:
    check_config(config, BASE / "workflow" / "schemas" / "config.schema.yaml")
except QuantrustError as error:
    stop(error)
# In its place, because captions and jobs read this very object.
config.update(completed(config))

STUDY = config["study"]
ID_DATASET = STUDY["id_dataset"]
DATASETS = [ID_DATASET, *STUDY["shifts"]]
REPORTS = config["report"]["folder"]
# What is computed of all variants together; two studies with folders of their own for reports do not undo each other.
STUDY_DATA = f"data/studies/{REPORTS}"
# What of a variant is computed of the dataset in distribution alone, before the shifts are added.
IN_DISTRIBUTION = ("scores", "metrics", "curves", "groups", "bins")
DUMPED = [CANDIDATES, *config["datasets"]]
# Datasets whose questions lie in one set of files, which is divided by image.
DIVIDED = [name for name, dataset in config["datasets"].items() if dataset.keys() & {"split", "split_file"}]
SOURCED = [name for name, model in config["models"].items() if "source" in model]
TRAINED = [name for name, model in config["models"].items() if "training" in model]
STRESSED = [name for name, model in config["models"].items() if "stress" in model]
# Jobs that share the questions of a variant and dataset.
SHARDS = config["features"]["shards"]
# Processes of such a job that prepare pictures beside the one that runs the model.
WORKERS = config["features"]["workers"]
# Host memory for activations, where the config says how much: a resource, because it changes nothing that is written.
ACTIVATIONS = (
    {}
    if config["calibration"]["activations_gb"] is None
    else {"activations_mb": round(1000 * config["calibration"]["activations_gb"])}
)
# Numbers of dev questions that Selectors are trained on, beside all of them.
LABELS = config["selector"]["learning_curve"]
# How many GPUs a job takes that runs a model.
GPUS = 1 if config["compute"]["device"] == "cuda" else 0


wildcard_constraints:
    model="|".join(map(re.escape, config["models"])),
    scheme="[a-z0-9-]+",
    dataset="|".join(map(re.escape, DUMPED)),


def memory(mb):
    """Memory of a job in MB: so much at the first attempt, and as much again at every further one."""
    return lambda wildcards, attempt: attempt * mb


def code(script):
    """Digest of a script and of every module of the package that it imports."""
    return code_digest(SCRIPTS / f"{script}.py", SCRIPTS)


def entry_code(module):
    """Digest of the module of a figure or table, which is found by its name; where it draws, also how methods look."""
    # What methods are called and drawn as is read from the source of their modules, which nothing imports.
    path = SCRIPTS.joinpath(*module.split(".")).with_suffix(".py")
    draws = SCRIPTS / "quantrust" / "report" / "style.py" in code_files(path, SCRIPTS)
    schemes = [resolve_scheme(name, config["schemes"].get(name)) for name in config["study"]["schemes"] if draws]
    methods = sorted({scheme.method for scheme in schemes if scheme.method is not None})
    return [source_digest(module), *(repr(method_traits(name)) for name in methods)]


def scheme_table(wildcards):
    """What the config has under the name of a scheme; nothing for a name that says everything itself."""
    return config["schemes"].get(wildcards.scheme)


def scheme_of(wildcards):
    """The scheme that a job quantizes under."""
    return resolve_scheme(wildcards.scheme, scheme_table(wildcards))


def quantization_code(wildcards):
    """Digests of what quantizes under a scheme: the script, and the method's module, which is found by its name."""
    method = scheme_of(wildcards).method
    return [code("quantize_model"), *([] if method is None else [source_digest(f"{METHODS}.{method}")])]


def base_model(wildcards):
    """The section of the config of a model, or of the one that it is a stressed form of."""
    model = config["models"][wildcards.model]
    return config["models"][model["stress"]["model"]] if "stress" in model else model


def model_files(wildcards):
    """The files that a model is made from: the list of their digests, or of a folder without one the files themselves."""
    key, model = f"models.{wildcards.model}", config["models"][wildcards.model]
    source = Path(_existing(f"{key}.source", [model["source"]], model)[0])
    if (record := source / "training.json").is_file():
        return [str(record)]
    if not (source / "config.json").is_file():
        stop(
            f"{source} holds no config.json, but {key}.source of the config names it; expected a model folder in the "
            f"Hugging Face layout: {_advice(model)}"
        )
    names = [*COMPANIONS, INDEX, *sorted(path.name for path in source.glob("*.safetensors"))]
    return [str(source / name) for name in names if (source / name).is_file()]


def chat_template_of(wildcards):
    """The file whose chat template takes the place of a model's own."""
    model = config["models"][wildcards.model]
    if "chat_template" not in model:
        return []
    return _existing(f"models.{wildcards.model}.chat_template", [model["chat_template"]], model)[0]


def family_code(wildcards):
    """Digest of the adapter of a model's family, which is found by its name and not by an import."""
    return source_digest(f"{FAMILIES}.{base_model(wildcards)['family']}")


def one_of(names):
    """Pattern of a wildcard that is one of these names; of none, a pattern that nothing matches."""
    return "|".join(map(re.escape, names)) or "(?!)"


def prompt_of(wildcards):
    """The user's text around a question: the model's own, or that of all models."""
    return base_model(wildcards).get("prompt", config["features"]["prompt"])


def selector_settings():
    """How Selectors are trained; on what parts of dev more of them are does not count."""
    return {key: value for key, value in config["selector"].items() if key != "learning_curve"}


def features_settings(wildcards):
    """What a variant's answers may depend on; how the work is spread does not count."""
    spread = ("workers", "shards")
    features = {key: value for key, value in config["features"].items() if key not in spread}
    return {**features, **config["compute"], "prompt": prompt_of(wildcards)}


def shards_of(wildcards):
    """The files that share the questions of a variant and dataset."""
    folder = f"data/shards/{wildcards.model}/{wildcards.scheme}/{wildcards.dataset}"
    return [f"{folder}/{shard}-of-{SHARDS}.parquet" for shard in range(1, SHARDS + 1)]


def of_variants(pattern):
    """A path for every variant of the study, models in their order, then schemes in theirs."""
    return expand(pattern, model=STUDY["models"], scheme=STUDY["schemes"])


def study_artifacts():
    """Everything that a study leaves behind, the intermediate artifacts as well: what is missing is made again."""
    return [
        *expand("data/questions/{dataset}.parquet", dataset=DATASETS),
        *of_variants("data/checkpoints/{model}/{scheme}"),
        *expand(
            "data/features/{model}/{scheme}/{dataset}.parquet",
            model=STUDY["models"],
            scheme=STUDY["schemes"],
            dataset=DATASETS,
        ),
        *(of_variants("data/selectors/{model}/{scheme}") if has_learned(STUDY["estimators"]) else []),
        *(
            path
            for kind in IN_DISTRIBUTION
            for path in of_variants(f"data/in_distribution/{kind}/{{model}}/{{scheme}}.parquet")
        ),
        *of_variants("data/scores/{model}/{scheme}.parquet"),
        *(of_variants("data/learning/curves/{model}/{scheme}.parquet") if LABELS else []),
        *expand("data/mixtures/{dataset}.parquet", dataset=STUDY["shifts"]),
        *of_variants("data/metrics/{model}/{scheme}.parquet"),
        *of_variants("data/curves/{model}/{scheme}.parquet"),
        *of_variants("data/groups/{model}/{scheme}.parquet"),
        *of_variants("data/bins/{model}/{scheme}.parquet"),
        *of_variants("data/certification/{model}/{scheme}.parquet"),
        f"{STUDY_DATA}/comparisons.parquet",
        *of_variants("data/decisions/{model}/{scheme}.parquet"),
        f"{STUDY_DATA}/shipping.parquet",
        f"{STUDY_DATA}/examples.parquet",
        f"{REPORTS}/index.html",
        *(path for entry in (*figures_of(config), *tables_of(config)) for path in entry.files(REPORTS).values()),
    ]


def study_downloads():
    """Records of the downloads that the study's datasets, calibration and models name."""
    sections = [
        *(config["datasets"][dataset] for dataset in DATASETS),
        config["calibration"],
        *(config["models"][model] for model in STUDY["models"]),
    ]
    names = dict.fromkeys(name for section in sections for name in section.get("downloads", []))
    return expand("data/downloads/{download}.json", download=names)


def dataset_settings(wildcards):
    """What a dataset's writer is given: its section of the config, less what selects among candidates."""
    if wildcards.dataset == CANDIDATES:
        language = config["datasets"]["scenes-language"]
        return {key: language[key] for key in ("images", "questions_per_image", "seed")}
    return {key: value for key, value in config["datasets"][wildcards.dataset].items() if key != "format"}


def is_embedded(dataset):
    """Whether a dataset is written by the workflow; its other datasets lie in files that the config names."""
    return dataset == CANDIDATES or config["datasets"][dataset]["format"] == EMBEDDED


def format_code(wildcards):
    """Digest of the readers of a dataset's formats, which are found by their names and not by imports."""
    return [source_digest(format_module(name)) for name in formats_of(wildcards)]


def formats_of(wildcards):
    """The formats of a dataset's files, each once."""
    return sorted({files["format"] for files in official_files(wildcards).values()})


def task_name(wildcards):
    """The name of the task that a dataset's questions are of, which follows from the format of its files."""
    (name,) = {load_format(name).task for name in formats_of(wildcards)}
    return name


def task_code(wildcards):
    """Digest of the task of a dataset, which is found by its name and not by an import."""
    return source_digest(task_module(task_name(wildcards)))


def official_files(wildcards):
    """The official files of each split of a dataset, or of all of it where it is divided by image."""
    if not is_embedded(wildcards.dataset):
        dataset = config["datasets"][wildcards.dataset]
        common = {key: dataset[key] for key in ("format", "image_name") if key in dataset}
        keys = ("questions", "annotations", "images")
        parts = dataset.get("splits", {"all": {key: dataset[key] for key in keys if key in dataset}})
        return {split: {**common, **files} for split, files in parts.items()}
    folder = f"data/embedded/{wildcards.dataset}"
    splits = (SHIFT_SPLIT,) if wildcards.dataset == CANDIDATES else splits_of(config["datasets"][wildcards.dataset])
    if wildcards.dataset == "scenes-multimodal":
        return {
            split: {
                "format": "vizwiz",
                "annotations": f"{folder}/annotations_{split}.json",
                "images": f"{folder}/images",
            }
            for split in splits
        }
    return {
        split: {
            "format": "vqav2",
            "questions": f"{folder}/questions_{split}.json",
            "annotations": f"{folder}/annotations_{split}.json",
            "images": f"{folder}/images",
        }
        for split in splits
    }


def sources_of(wildcards):
    """What the questions table of a dataset is read from, images included."""
    if is_embedded(wildcards.dataset):
        return f"data/embedded/{wildcards.dataset}"
    keys = ("questions", "annotations", "images")
    parts = official_files(wildcards).values()
    paths = list(dict.fromkeys(files[key] for files in parts for key in keys if key in files))
    return _existing(f"datasets.{wildcards.dataset}", paths, config["datasets"][wildcards.dataset])


def _existing(key, paths, section):
    """Return paths that a key of the config names, or say how they are had."""
    for path in paths:
        if not Path(path).exists():
            stop(f"{path} does not exist, but {key} of the config names it; {_advice(section)}")
    return paths


def _advice(section):
    """What to do about a path that a section of the config names and that is not there."""
    download = ", or get it with `snakemake download` and the same --configfile"
    return "correct the path" + (download if "downloads" in section else "")


def max_aspect_ratio_of(wildcards):
    """The longer side of a dataset's images over the shorter one, up to which all models of the study read them.

    Embedded ones are square; their questions are read anew for no other choice of models.
    """
    if is_embedded(wildcards.dataset):
        return None
    return max_aspect_ratio(base_model(SimpleNamespace(model=model))["family"] for model in STUDY["models"])


def division_of(wildcards):
    """The table of splits of a dataset that is divided by image."""
    return f"data/splits/{wildcards.dataset}.parquet" if wildcards.dataset in DIVIDED else []


def division_settings(wildcards):
    """How a dataset is divided by image: shares and a seed, or a file and the splits that the study reads."""
    dataset = config["datasets"][wildcards.dataset]
    if "split" in dataset:
        return dict(dataset["split"])
    return {"file": dataset["split_file"], "splits": ID_SPLITS if wildcards.dataset == ID_DATASET else (SHIFT_SPLIT,)}


def split_file_of(wildcards):
    """The published split file of a dataset, if it is divided by one."""
    dataset = config["datasets"][wildcards.dataset]
    if "split_file" not in dataset:
        return []
    return _existing(f"datasets.{wildcards.dataset}", [dataset["split_file"]], dataset)


def images_of(wildcards):
    """The folders whose images a questions table names."""
    if is_embedded(wildcards.dataset):
        return [f"data/embedded/{wildcards.dataset}"]
    return list(dict.fromkeys(files["images"] for files in official_files(wildcards).values()))


def calibration_files():
    """What calibration tables are drawn from: image-caption pairs, and whose images must not be among them."""
    source = config["calibration"]["source"]
    if source is None:
        return {"dataset": f"data/embedded/{ID_DATASET}"}
    return {
        "captions": source["captions"],
        "images": source["images"],
        "questions": f"data/questions/{ID_DATASET}.parquet",
    }


def calibration_source():
    """The captions file of the calibration, the folder of its images, and what their paths must begin with."""
    source = config["calibration"]["source"]
    if source is None:
        return {"captions": f"data/embedded/{ID_DATASET}/captions.json", "images": f"data/embedded/{ID_DATASET}/images"}
    return dict(source)


def calibration_of(wildcards):
    """The calibration table of a data-aware scheme; nothing for a scheme that reads no data."""
    if scheme_of(wildcards).needs_calibration:
        return f"data/calibration/{wildcards.model}.parquet"
    return []


def calibration_images(wildcards):
    """The folder whose images a calibration table names."""
    if not calibration_of(wildcards):
        return []
    source = config["calibration"]["source"]
    return f"data/embedded/{ID_DATASET}" if source is None else source["images"]


def scored_estimators():
    """The estimators that the scores hold; calibrated ones are fitted to them by the evaluation."""
    return list(dict.fromkeys(name.split("+")[0] for name in STUDY["estimators"]))


def estimator_code():
    """Digest of the modules of the estimators that the scores hold; the learned ones have theirs with the script."""
    return [source_digest(estimator_module(name)) for name in scored_estimators() if name not in LEARNED]


def evaluation_settings():
    """What every variant's evaluation is given."""
    evaluation = config["evaluation"]
    return {
        "id_dataset": ID_DATASET,
        "estimators": STUDY["estimators"],
        "risks": evaluation["risks"],
        "costs": evaluation["costs"],
        "resamples": evaluation["resamples"],
        "level": evaluation["confidence_level"],
        "seed": config["seed"],
    }


def breakdown_settings():
    """What every variant's breakdown is given."""
    return {name: value for name, value in evaluation_settings().items() if name != "costs"}


def paper_table_settings(estimators):
    """What a main table of the paper is given."""
    evaluation = config["evaluation"]
    return {
        "id_dataset": ID_DATASET,
        "estimators": estimators,
        "risks": evaluation["risks"],
        "costs": evaluation["costs"],
        "resamples": config["comparison"]["resamples"],
        "level": evaluation["confidence_level"],
    }


def certification_settings():
    """What every variant's certification is given."""
    return {"id_dataset": ID_DATASET, "seed": config["seed"], **config["certification"]}


def decision_settings():
    """What the tabulation of every variant's thresholds is given."""
    return {
        "id_dataset": ID_DATASET,
        "estimators": config["certification"]["estimators"],
        "delta": config["certification"]["delta"],
        "splits": config["certification"]["splits"],
        "resamples": config["evaluation"]["resamples"],
        "level": config["evaluation"]["confidence_level"],
        "seed": config["seed"],
    }


def shipping_settings():
    """What the judgement of schemes is given."""
    return {
        "reference": UNQUANTIZED,
        **config["report"]["shipping"],
        "id_dataset": ID_DATASET,
        "resamples": config["comparison"]["resamples"],
        "level": config["evaluation"]["confidence_level"],
        "seed": config["seed"],
    }


def example_settings():
    """What the choice of example questions is given."""
    return {
        "id_dataset": ID_DATASET,
        "estimator": config["report"]["shipping"]["estimators"][0],
        "risk": config["report"]["shipping"]["risk"],
        "each": config["report"]["examples"],
        "seed": config["seed"],
    }


def shown_config():
    """The config as the page shows it: of models, datasets, schemes and downloads only what the study uses."""
    stressed = [config["models"][name]["stress"]["model"] for name in STUDY["models"] if name in STRESSED]
    models = [*STUDY["models"], *stressed]
    used = {"models": models, "datasets": DATASETS, "schemes": STUDY["schemes"], "downloads": []}
    return in_order(
        {
            section: (
                {name: part for name, part in content.items() if name in used[section]} if section in used else content
            )
            for section, content in config.items()
        }
    )


def in_order(content):
    """A part of the config with its keys in alphabetical order: the order that overlays give them says nothing."""
    if not isinstance(content, dict):
        return content
    return {key: in_order(content[key]) for key in sorted(content)}


def features_of_variants():
    """Features of every variant, and of each on every dataset, in the order of `of_variants`."""
    return [
        f"data/features/{model}/{scheme}/{dataset}.parquet"
        for model, scheme in compared_variants()
        for dataset in DATASETS
    ]


def images_of_datasets(wildcards):
    """The folders of images of all datasets, for a rule that unpacks them."""
    return {"images": [path for dataset in DATASETS for path in images_of(SimpleNamespace(dataset=dataset))]}


def compared_variants():
    """The variants of the study as (model, scheme), in the order of `of_variants`."""
    return [(model, scheme) for model in STUDY["models"] for scheme in STUDY["schemes"]]


def comparison_pairs():
    """Every quantized scheme against none, under each estimator; and each estimator against maxprob, where it is there."""
    estimators = config["comparison"]["estimators"]
    schemes = [
        ((model, scheme, estimator), (model, UNQUANTIZED, estimator))
        for model, scheme in compared_variants()
        for estimator in estimators
        if scheme != UNQUANTIZED and UNQUANTIZED in STUDY["schemes"]
    ]
    others = [
        ((*variant, estimator), (*variant, "maxprob"))
        for variant in compared_variants()
        for estimator in estimators
        if estimator != "maxprob" and "maxprob" in STUDY["estimators"]
    ]
    return schemes + others


def comparison_settings():
    """What the comparison of variants and estimators is given."""
    coverages = [("coverage_at_risk", risk) for risk in config["report"]["risks"]]
    return {
        "pairs": comparison_pairs(),
        "id_dataset": ID_DATASET,
        "metrics": [("accuracy", None), ("aurc", None), ("ece", None), *coverages],
        "resamples": config["comparison"]["resamples"],
        "seed": config["seed"],
        "level": config["evaluation"]["confidence_level"],
    }


def learning_settings():
    """What the comparison of Selectors on parts of dev with maxprob is given."""
    return {
        "estimators": learning_estimators(config),
        "id_dataset": ID_DATASET,
        "metrics": [("aurc", None), ("ece", None), ("coverage_at_risk", max(config["report"]["risks"]))],
        "resamples": config["evaluation"]["resamples"],
        "seed": config["seed"],
        "level": config["evaluation"]["confidence_level"],
    }


def shown(entry):
    """The files of a figure or table, one of them marked for the report that Snakemake writes."""
    files = entry.files(REPORTS)
    marks = {"caption": f"../report/{entry.name}.rst", "category": entry.category, "labels": {entry.kind: entry.label}}
    return files | {entry.shown: report(files[entry.shown], **marks)}


def figure_captions():
    """The captions of the study's figures, by name, as the report that Snakemake writes has them."""
    texts = {
        figure.name: (BASE / "workflow" / "report" / f"{figure.name}.rst").read_text(encoding="utf-8")
        for figure in figures_of(config)
    }
    job = SimpleNamespace(config=config)
    return {name: Template(text, undefined=StrictUndefined).render(snakemake=job) for name, text in texts.items()}
