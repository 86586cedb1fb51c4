"""Checking a study's config before any job: what the schema says and what a schema can not say."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quantrust.confidence.catalogue import COMPARED, OF_ONE_NETWORK, check_estimator, main_estimators
from quantrust.data.format import format_names, load_format
from quantrust.data.official import SPLITS as ID_SPLITS
from quantrust.errors import QuantrustError
from quantrust.evaluation.limits import risk_limits
from quantrust.models.processor_settings import unknown_settings, unsupported
from quantrust.quantization.scheme import resolve_scheme
from quantrust.study.schema import schema_faults

SHIFT_SPLIT = "test"
EMBEDDED = "embedded"
CANDIDATES = "scenes-language-candidates"
"""The dataset that `scenes-language` is chosen from; no config names it."""
MOST_LIMITS = 1000
"""Risk limits of the decision table."""


def check_config(config: dict[str, Any], schema_path: str | Path) -> None:
    """Raise when the config is not a study that can be run.

    Parameters
    ----------
    config : dict
        The default merged with its overlays.
    schema_path : str or Path
        The JSON schema, in YAML.

    Raises
    ------
    QuantrustError
        With one line for every fault: the key's path, its value and what is allowed there.
    """
    faults = schema_faults(config, schema_path) or list(_study_faults(config))
    if faults:
        raise QuantrustError("\n".join(f"config: {fault}" for fault in faults))


def _study_faults(config: dict[str, Any]) -> Iterator[str]:
    study, datasets = config["study"], config["datasets"]
    if CANDIDATES in datasets:
        yield f"datasets.{CANDIDATES} is the name of a dataset that the workflow writes; allowed: another name"
    yield from _unknown_names("study.models", study["models"], config["models"], "models")
    calibrated = False
    tables = config["schemes"]
    for name, table in tables.items():
        try:
            resolve_scheme(name, table)
        except QuantrustError as error:
            yield str(error)
    for number, name in enumerate(study["schemes"]):
        try:
            calibrated |= resolve_scheme(name, tables.get(name)).needs_calibration
        except QuantrustError as error:
            # what is wrong with a table is said above
            if name not in tables:
                known = f"; or a name under schemes: {', '.join(tables)}" if tables else ""
                yield f"study.schemes[{number}] is {name!r}: {error}{known}"
    for number, name in enumerate(study["estimators"]):
        try:
            check_estimator(name)
        except QuantrustError as error:
            yield f"study.estimators[{number}] is {name!r}: {error}"
    for name, model in config["models"].items():
        if "family" in model and (fault := unsupported(model["family"])) is not None:
            yield f"models.{name}.family: {fault}"
        elif "family" in model:
            for fault in unknown_settings(model["family"], model.get("processor", {})):
                yield f"models.{name}.processor: {fault}"
        base = model.get("stress", {}).get("model")
        if base is not None and "source" not in config["models"].get(base, {}):
            known = ", ".join(name for name, model in config["models"].items() if "source" in model)
            yield f"models.{name}.stress.model is {base!r}; allowed: a model with a source: {known}"
        yield from _model_faults(name, model, config["models"].get(base, {}))
    yield from _unknown_names("study.shifts", study["shifts"], datasets, "datasets")
    id_dataset = study["id_dataset"]
    if id_dataset not in datasets:
        yield f"study.id_dataset is {id_dataset!r}; allowed: a name under datasets: {', '.join(datasets)}"
    else:
        lacking = _splits_lacking(datasets[id_dataset], ID_SPLITS)
        if lacking:
            yield (
                f"study.id_dataset is {id_dataset!r}, which has no split {lacking[0]}; allowed: a dataset with the "
                f"splits {', '.join(ID_SPLITS)}"
            )
        if calibrated:
            yield from _calibration_faults(config, id_dataset)
    for number, name in enumerate(study["shifts"]):
        if name == id_dataset:
            yield f"study.shifts[{number}] is {name!r}, the dataset in distribution; allowed: any other dataset"
        elif name in datasets and _splits_lacking(datasets[name], (SHIFT_SPLIT,)):
            yield f"study.shifts[{number}] is {name!r}, which has no split {SHIFT_SPLIT}; allowed: a dataset with one"
    formats = format_names()
    for name, dataset in datasets.items():
        # The schema knows the embedded datasets by their names, and only they have a seed.
        if dataset["format"] == EMBEDDED and "seed" in dataset:
            continue
        if dataset["format"] not in formats:
            yield f"datasets.{name}.format is {dataset['format']!r}; allowed: {', '.join(formats)}"
        else:
            yield from _official_faults(f"datasets.{name}", dataset)
    for path, section in (
        *((f"models.{name}", model) for name, model in config["models"].items()),
        *((f"datasets.{name}", dataset) for name, dataset in datasets.items()),
        ("calibration", config["calibration"]),
    ):
        yield from _unknown_names(f"{path}.downloads", section.get("downloads", []), config["downloads"], "downloads")
    for name, dataset in datasets.items():
        if "adversary" in dataset and dataset["adversary"] not in config["models"]:
            yield (
                f"datasets.{name}.adversary is {dataset['adversary']!r}; "
                f"allowed: a name under models: {', '.join(config['models'])}"
            )
    features = config["features"]
    if features["kernel"] == "packed" and features["dtype"] != "bfloat16":
        yield f"features.dtype is {features['dtype']!r}; allowed: bfloat16, as features.kernel is packed"
    if config["compute"]["attention"] == "flash_attention_2":
        if config["compute"]["device"] != "cuda":
            yield "compute.attention is 'flash_attention_2'; allowed: eager, sdpa, as compute.device is not cuda"
        if features["dtype"] != "bfloat16":
            yield (
                f"features.dtype is {features['dtype']!r}; allowed: bfloat16, as compute.attention is flash_attention_2"
            )
    shares = config["evaluation"]["id_shares"]
    if not {0, 1} <= set(shares):
        yield f"evaluation.id_shares is {shares}; allowed: shares that include 1 and 0, each dataset alone"
    if not {*COMPARED} & {*study["estimators"]}:
        yield (
            f"study.estimators is {study['estimators']}; allowed: a list with {' or '.join(COMPARED)} in it, which the "
            "figures and the tables of a paper show"
        )
    estimators = estimators_of(config)
    for key in ("certification", "comparison"):
        yield from _unknown_names(f"{key}.estimators", estimators[key], study["estimators"], "study.estimators")
    members = config["selector"]["members"]
    if {name.split("+")[0] for name in study["estimators"]} & {*OF_ONE_NETWORK}:
        for key in ("evaluation", "comparison"):
            if config[key]["resamples"] < members:
                yield (
                    f"{key}.resamples is {config[key]['resamples']}; allowed: at least selector.members, {members}, "
                    "each of which is drawn"
                )
    yield from _learning_faults(config)
    computed = config["evaluation"]["risks"]
    for number, risk in enumerate(config["report"]["risks"]):
        if risk not in computed:
            yield f"report.risks[{number}] is {risk}; allowed: one of evaluation.risks: {', '.join(map(str, computed))}"
    shipping, limits = config["report"]["shipping"], risk_limits(**config["report"]["limits"])
    if not 0 < len(limits) <= MOST_LIMITS:
        yield (
            f"report.limits are {len(limits):,} limits; allowed: 1 to {MOST_LIMITS:,}, from the lowest to a highest "
            "that is not below it"
        )
        return
    yield from _unknown_names(
        "report.shipping.estimators", estimators["shipping"], estimators["certification"], "certification.estimators"
    )
    if shipping["risk"] not in limits:
        yield (
            f"report.shipping.risk is {shipping['risk']}; allowed: one of report.limits: {', '.join(map(str, limits))}"
        )


def _learning_faults(config: dict[str, Any]) -> Iterator[str]:
    labels, study = config["selector"]["learning_curve"], config["study"]
    if not labels:
        return
    if labels != sorted(labels):
        yield f"selector.learning_curve is {labels}; allowed: numbers of questions from the least to the largest"
    if "maxprob" not in study["estimators"] or not {*OF_ONE_NETWORK} & {*study["estimators"]}:
        yield (
            f"selector.learning_curve is {labels}; allowed where study.estimators has maxprob and one of "
            f"{', '.join(OF_ONE_NETWORK)}: {', '.join(study['estimators'])}"
        )
    dataset = config["datasets"].get(study["id_dataset"], {})
    if "questions_per_image" in dataset and "captions" in dataset:
        asked = dataset["images"]["dev"] * dataset["questions_per_image"]
        if max(labels) > asked:
            yield (
                f"selector.learning_curve is {labels}; allowed: at most the dev questions of "
                f"{study['id_dataset']}, {asked}"
            )


def estimators_of(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the estimators that are certified, compared and held against the shipping criterion.

    Parameters
    ----------
    config : mapping
        As the schema allows it.

    Returns
    -------
    dict of str to list of str
        Under `certification`, `comparison` and `shipping` the config's own lists; in the place of null the main ones
        (`quantrust.confidence.catalogue.main_estimators`) of the study, for shipping of those that are certified.
    """
    main = main_estimators(config["study"]["estimators"])
    certified = main if (given := config["certification"]["estimators"]) is None else given
    compared = main if (given := config["comparison"]["estimators"]) is None else given
    shipping = config["report"]["shipping"]["estimators"]
    return {
        "certification": certified,
        "comparison": compared,
        "shipping": main_estimators(certified) if shipping is None else shipping,
    }


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checked config with what it leaves open filled in: see `estimators_of`.

    Parameters
    ----------
    config : mapping
        It stays as it is.
    """
    estimators, report = estimators_of(config), config["report"]
    return {
        **config,
        "certification": {**config["certification"], "estimators": estimators["certification"]},
        "comparison": {**config["comparison"], "estimators": estimators["comparison"]},
        "report": {**report, "shipping": {**report["shipping"], "estimators": estimators["shipping"]}},
    }


def splits_of(dataset: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the splits that a dataset has, or None where only its split file knows.

    Parameters
    ----------
    dataset : dict
        Its section of the config.
    """
    if dataset["format"] == EMBEDDED:
        return ID_SPLITS if "captions" in dataset else (SHIFT_SPLIT,)
    if "split_file" in dataset:
        return None
    if "split" in dataset:
        return tuple(split for split in ID_SPLITS if dataset["split"][split] > 0)
    return tuple(split for split in ID_SPLITS if split in dataset.get("splits", {}))


def _splits_lacking(dataset: dict[str, Any], needed: tuple[str, ...]) -> list[str]:
    splits = splits_of(dataset)
    return [] if splits is None else [split for split in needed if split not in splits]


def _calibration_faults(config: dict[str, Any], id_dataset: str) -> Iterator[str]:
    calibration, dataset = config["calibration"], config["datasets"][id_dataset]
    if calibration["source"] is not None:
        return
    if "captions" not in dataset:
        yield (
            f"calibration.source is None; allowed where the dataset in distribution, {id_dataset}, was written without "
            "captions: a file of image-caption pairs and the folder of their images"
        )
    elif calibration["samples"] > dataset["captions"]:
        yield (
            f"calibration.samples is {calibration['samples']}; allowed: at most {dataset['captions']}, which is "
            f"datasets.{id_dataset}.captions"
        )


def _model_faults(name: str, model: dict[str, Any], base: dict[str, Any]) -> Iterator[str]:
    """Yield what a model with outlier channels can not have: it is written anew, in the embedded models' layout."""
    if "stress" not in model:
        return
    for key in ("processor", "chat_template", "prompt"):
        if key in model:
            yield f"models.{name}.{key} is given beside stress; allowed: with source only"
    for key in ("processor", "chat_template"):
        if key in base:
            yield (
                f"models.{name}.stress.model is {model['stress']['model']!r}, which has {key}; allowed: a model "
                "without one"
            )


def _official_faults(path: str, dataset: dict[str, Any]) -> Iterator[str]:
    ways = [way for way in ("splits", "split", "split_file") if way in dataset]
    if len(ways) != 1:
        given = " and ".join(f"{path}.{way}" for way in ways) or "none of them"
        yield (
            f"{path} needs splits (files for each), split (shares and a seed) or split_file, one of the three; "
            f"given: {given}"
        )
        return
    parts = {f"{path}.splits.{split}": files for split, files in dataset.get("splits", {}).items()}
    if ways != ["splits"]:
        parts = {path: dataset}
    elif misplaced := [key for key in ("questions", "annotations", "images") if key in dataset]:
        yield f"{path}.{misplaced[0]} is given beside {path}.splits; allowed: files under each split only"
    file_format = load_format(dataset["format"])
    for part, files in parts.items():
        yield from (f"{part}.{key} is missing" for key in (*file_format.parts, "images") if key not in files)
        if "questions" in files and "questions" not in file_format.parts:
            yield (
                f"{part}.questions is given; allowed: nothing, {dataset['format']} has its questions among the "
                "annotations"
            )
    if "image_name" in dataset and file_format.image_name is None:
        yield f"{path}.image_name is given; allowed: nothing, {dataset['format']} names the image of every question"
    if "split" in dataset:
        total = sum(dataset["split"][split] for split in ID_SPLITS)
        if abs(total - 1) > 1e-9:
            yield f"{path}.split has shares that sum to {total:g}; allowed: shares that sum to 1"


def _unknown_names(path: str, names: list[str], known: dict[str, Any], section: str) -> Iterator[str]:
    for number, name in enumerate(names):
        if name not in known:
            yield f"{path}[{number}] is {name!r}; allowed: a name under {section}: {', '.join(known)}"
