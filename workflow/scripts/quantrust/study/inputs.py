"""Which files a job reads, where that depends on the config. Snakemake calls these functions with a job's wildcards.

If a path that the config names does not exist, the error says how to get the file.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from quantrust.data.format import load_format
from quantrust.embedded.catalogue import EMBEDDED_DATASETS
from quantrust.errors import QuantrustError
from quantrust.models.companions import COMPANIONS, INDEX
from quantrust.quantization.external_config import external_format
from quantrust.quantization.factorial import grid_schemes
from quantrust.quantization.scheme import UNQUANTIZED
from quantrust.report.contents import datasets_of
from quantrust.study import paths
from quantrust.study.contents import (
    CANDIDATES,
    ID_SPLITS,
    LANGUAGE_SHIFT,
    SHIFT_SPLIT,
    Config,
    base_model,
    datasets_with_groups,
    dumped_datasets,
    external_folder,
    grid_variants,
    is_divided,
    is_embedded,
    reads_calibration,
    splits_of,
    variants_of,
)
from quantrust.tasks.task import load_task

File = str | list[str]
"""A path, or an empty list for none."""
OFFICIAL_PARTS = ("questions", "annotations", "images")
QUESTIONS_FIRST = 3
"""Priority of the jobs that make questions, and of what they choose by, and of those that check what a study is given.

Answers to the ID dataset have 1, others 0.
"""
EMBEDDED_FIRST = 2
"""Priority of the checkpoints of embedded models: jobs that answer go on with the variants that are there by then.

They take seconds, half a minute with data. Those of other models can take hours, and what is wrong with answers is to
be found before.
"""


def model_files(config: Config, model: str) -> list[str]:
    """Return the files that a model is made from: the list of their digests, or of a folder without one the files."""
    key, section = f"models.{model}", config["models"][model]
    source = Path(_existing(f"{key}.source", [section["source"]], section)[0])
    if (record := source / "training.json").is_file():
        return [str(record)]
    if not (source / "config.json").is_file():
        raise QuantrustError(
            f"{source} holds no config.json, but {key}.source of the config names it; expected a model folder in the "
            f"Hugging Face layout: {_advice(section)}"
        )
    names = [*COMPANIONS, INDEX, *sorted(path.name for path in source.glob("*.safetensors"))]
    return [str(source / name) for name in names if (source / name).is_file()]


def external_files(config: Config, model: str, scheme: str) -> list[str]:
    """Return the files of a variant that others quantized: its config and its weights.

    Raises
    ------
    QuantrustError
        If its folder is not there, or holds no quantized model in a format that is read.
    """
    key = f"schemes.{scheme}.external"
    folder = Path(_existing(key, [external_folder(config, model, scheme)], {})[0])
    if not (folder / "config.json").is_file():
        raise QuantrustError(
            f"{folder} holds no config.json, but {key} of the config names it; expected a folder with a quantized "
            "model in the Hugging Face layout, of safetensors and no GGUF: correct the path"
        )
    external_format(folder)
    names = ["config.json", INDEX, *sorted(path.name for path in folder.glob("*.safetensors"))]
    return [str(folder / name) for name in names if (folder / name).is_file()]


def chat_template(config: Config, model: str) -> File:
    """Return the file whose chat template takes the place of a model's own, if the config names one."""
    section = config["models"][model]
    if "chat_template" not in section:
        return []
    return _existing(f"models.{model}.chat_template", [section["chat_template"]], section)[0]


def stressed_model(config: Config, model: str) -> str:
    """Return the folder of the model that another is a stressed form of."""
    return paths.MODEL.format(model=config["models"][model]["stress"]["model"])


def features_of_candidates(config: Config) -> str:
    """Return the features of the candidates that the adversary, unquantized, is asked about."""
    adversary = config["datasets"][LANGUAGE_SHIFT]["adversary"]
    return paths.FEATURES.format(model=adversary, scheme=UNQUANTIZED, dataset=CANDIDATES)


def official_files(config: Config, dataset: str) -> dict[str, dict[str, Any]]:
    """Return the official files of each split of a dataset, or of all of it where it is divided by image."""
    if not is_embedded(config, dataset):
        section = config["datasets"][dataset]
        common = {key: section[key] for key in ("format", "image_name", "instruction", "subset") if key in section}
        parts = section.get("splits", {"all": {key: section[key] for key in OFFICIAL_PARTS if key in section}})
        return {split: {**common, **files} for split, files in parts.items()}
    folder = paths.EMBEDDED_DATASET.format(dataset=dataset)
    splits = (SHIFT_SPLIT,) if dataset == CANDIDATES else splits_of(config["datasets"][dataset]) or ()
    own = EMBEDDED_DATASETS[dataset]
    holds_all_splits = load_format(own.format).has_subsets
    return {
        split: {
            "format": own.format,
            **{part: f"{folder}/{name.format(split=split)}" for part, name in own.files.items()},
            "images": f"{folder}/images",
            **({"subset": split} if holds_all_splits else {}),
        }
        for split in splits
    }


def formats_of(config: Config, dataset: str) -> list[str]:
    """Return the formats of a dataset's files, each once."""
    return sorted({files["format"] for files in official_files(config, dataset).values()})


def task_of(config: Config, dataset: str) -> str:
    """Return the name of the task that a dataset's questions are of, which follows from the format of its files."""
    (name,) = {load_format(name).task for name in formats_of(config, dataset)}
    return name


def corpus_metrics_of(config: Config, datasets: Iterable[str]) -> list[str]:
    """Return the names of the metrics of all answers together that the tasks of datasets have, each once."""
    return list(
        dict.fromkeys(name for dataset in datasets for name in load_task(task_of(config, dataset)).further_metrics)
    )


def matches(config: Config, dataset: str) -> bool:
    """Return whether the answers to a dataset are found among its images and texts, and not written."""
    return load_task(task_of(config, dataset)).matches


def matched_datasets(config: Config) -> list[str]:
    """Return the datasets whose answers are found, of all that features can be dumped of."""
    return [name for name in dumped_datasets(config) if matches(config, name)]


def answered_datasets(config: Config) -> list[str]:
    """Return the datasets whose answers are written, of all that features can be dumped of."""
    return [name for name in dumped_datasets(config) if not matches(config, name)]


def priority_of(config: Config, dataset: str) -> int:
    """Return the priority of a job that answers a dataset: the ID dataset comes before the shifts.

    Before any other comes what questions are chosen by, because the job of the ID dataset goes on with the shifts whose
    questions are there.
    """
    return QUESTIONS_FIRST if dataset == CANDIDATES else int(dataset == config["study"]["id_dataset"])


def priority_of_checkpoint(config: Config, model: str, scheme: str) -> int:
    """Return the priority of a job that makes a variant: first comes the one whose answers questions are chosen by."""
    shift = config["datasets"].get(LANGUAGE_SHIFT)
    if shift and (model, scheme) == (shift["adversary"], UNQUANTIZED):
        return QUESTIONS_FIRST
    return EMBEDDED_FIRST if "training" in base_model(config, model) else 0


def id_splits(config: Config) -> tuple[str, ...]:
    """Return the splits that the ID dataset must have: no Selector trains on the dev of one whose answers are found."""
    return tuple(split for split in ID_SPLITS if split != "dev" or not matches(config, config["study"]["id_dataset"]))


def files_to_divide(config: Config, dataset: str) -> dict[str, Any]:
    """Return the official files of a dataset that is divided by image."""
    return official_files(config, dataset)["all"]


def sources(config: Config, dataset: str) -> list[str]:
    """Return what the questions table of a dataset is read from, images included."""
    if is_embedded(config, dataset):
        return [paths.EMBEDDED_DATASET.format(dataset=dataset)]
    parts = official_files(config, dataset).values()
    named = list(dict.fromkeys(files[key] for files in parts for key in OFFICIAL_PARTS if key in files))
    return _existing(f"datasets.{dataset}", named, config["datasets"][dataset])


def question_files(config: Config, dataset: str) -> list[str]:
    """Return the official files from which the questions of a dataset are read, each once."""
    parts = official_files(config, dataset).values()
    named = [files[part] for files in parts for part in load_format(files["format"]).parts]
    return _existing(f"datasets.{dataset}", list(dict.fromkeys(named)), config["datasets"][dataset])


def checked(config: Config, model: str, dataset: str) -> File:
    """Return what says that a model's tokenizer has read all questions of a dataset; nothing for an embedded one."""
    return [] if is_embedded(config, dataset) else paths.CHECKED.format(model=model, dataset=dataset)


def checked_in_distribution(config: Config, model: str) -> File:
    """Return what says that a model's tokenizer has read all questions of the ID dataset, if it is not embedded."""
    return checked(config, model, config["study"]["id_dataset"])


def division(config: Config, dataset: str) -> File:
    """Return the table of splits of a dataset that is divided by image."""
    return paths.DIVISION.format(dataset=dataset) if is_divided(config, dataset) else []


def split_file(config: Config, dataset: str) -> list[str]:
    """Return the published split file of a dataset, if it is divided by one."""
    section = config["datasets"][dataset]
    return _existing(f"datasets.{dataset}", [section["split_file"]], section) if "split_file" in section else []


def group_file(config: Config, dataset: str) -> str:
    """Return the file that brings groups of a dataset's questions."""
    section = config["datasets"][dataset]
    return _existing(f"datasets.{dataset}.groups", [section["groups"]], section)[0]


def question_groups(config: Config) -> list[str]:
    """Return the tables of the groups that datasets of the study bring."""
    return [paths.QUESTION_GROUPS.format(dataset=dataset) for dataset in datasets_with_groups(config)]


def image_folders(config: Config, dataset: str) -> list[str]:
    """Return the folders whose images a questions table names."""
    if is_embedded(config, dataset):
        return [paths.EMBEDDED_DATASET.format(dataset=dataset)]
    return list(dict.fromkeys(files["images"] for files in official_files(config, dataset).values()))


def all_image_folders(config: Config) -> list[str]:
    """Return the folders of images of all datasets of the study."""
    return [folder for dataset in datasets_of(config) for folder in image_folders(config, dataset)]


def calibration_files(config: Config) -> dict[str, str]:
    """Return what calibration tables are drawn from: image-caption pairs, and what must not be among them."""
    source, id_dataset = config["calibration"]["source"], config["study"]["id_dataset"]
    if source is None:
        return {"dataset": paths.EMBEDDED_DATASET.format(dataset=id_dataset)}
    for key in ("captions", "images"):
        _existing(f"calibration.source.{key}", [source[key]], config["calibration"])
    return {
        "captions": source["captions"],
        "images": source["images"],
        "questions": paths.QUESTIONS.format(dataset=id_dataset),
    }


def calibration_table(config: Config, model: str, scheme: str) -> File:
    """Return the calibration table of a data-aware scheme; nothing for a scheme that reads no data."""
    return paths.CALIBRATION.format(model=model) if reads_calibration(config, scheme) else []


def calibration_images(config: Config, scheme: str) -> list[str]:
    """Return the folder whose images the calibration table of a data-aware scheme names."""
    if not reads_calibration(config, scheme):
        return []
    files = calibration_files(config)
    return [files.get("images", files.get("dataset", ""))]


def shards(config: Config, model: str, scheme: str, dataset: str) -> list[str]:
    """Return the files that share the questions of a variant and dataset."""
    count = config["features"]["shards"]
    of_all = {"model": model, "scheme": scheme, "dataset": dataset, "shards": count}
    return [paths.SHARD.format(**of_all, shard=shard) for shard in range(1, count + 1)]


def swept_schemes(config: Config) -> list[str]:
    """Return the schemes of grids whose answers the jobs of a grid make together, and whose checkpoints are not kept.

    They are all but the unquantized one, and but those that are schemes of the study as well. There are none where the
    questions of a dataset are spread over several jobs, or where models match images with texts: every scheme then has
    jobs of its own.
    """
    if config["features"]["shards"] > 1 or matches(config, config["study"]["id_dataset"]):
        return []
    return [name for name in grid_schemes(config) if name not in (UNQUANTIZED, *config["study"]["schemes"])]


def checkpoints_of_grids(config: Config) -> list[str]:
    """Return what says of every variant of the study's grids how large it is: its checkpoint, or the record of one."""
    swept = swept_schemes(config)
    return [
        (paths.CELL if scheme in swept else paths.CHECKPOINT).format(model=model, scheme=scheme)
        for model, scheme in grid_variants(config)
    ]


def features_of_variants(config: Config) -> list[str]:
    """Return the features of every variant, and of each on every dataset."""
    return [
        paths.FEATURES.format(model=model, scheme=scheme, dataset=dataset)
        for model, scheme in variants_of(config)
        for dataset in datasets_of(config)
    ]


def _existing(key: str, files: list[str], section: Mapping[str, Any]) -> list[str]:
    """Return paths that a key of the config names, or raise an error that says how to get them."""
    for path in files:
        if not Path(path).exists():
            raise QuantrustError(f"{path} does not exist, but {key} of the config names it; {_advice(section)}")
        # Whoever reads a pipe or a device may wait for ever.
        if not (Path(path).is_file() or Path(path).is_dir()):
            raise QuantrustError(
                f"{path} is neither a file nor a folder, but {key} of the config names it; {_advice(section)}"
            )
    return files


def _advice(section: Mapping[str, Any]) -> str:
    """Say what to do about a path that a section of the config names and that is not there."""
    download = ", or get it with `snakemake download` and the same --configfile"
    return "correct the path" + (download if "downloads" in section else "")
