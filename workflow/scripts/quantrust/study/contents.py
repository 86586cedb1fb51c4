"""What a study consists of, as its config names it: models, schemes, datasets, estimators and downloads."""

from collections.abc import Mapping
from itertools import product
from typing import Any

from quantrust.confidence.catalogue import main_estimators
from quantrust.data.groupings import GROUPINGS
from quantrust.data.official import SPLITS as ID_SPLITS
from quantrust.embedded.catalogue import EMBEDDED
from quantrust.evaluation.limits import risk_limits
from quantrust.quantization.factorial import grid_schemes
from quantrust.quantization.scheme import EXTERNAL, Scheme, resolve_scheme
from quantrust.report.contents import datasets_of, own_groupings

Config = Mapping[str, Any]

SHIFT_SPLIT = "test"
LANGUAGE_SHIFT = "scenes-language"
MODEL_IN_PATH = "{model}"
"""Stands for the name of a model in the path of a folder that others quantized."""
CANDIDATES = "scenes-language-candidates"
"""The dataset that `scenes-language` is chosen from; no config names it."""


def variants_of(config: Config) -> list[tuple[str, str]]:
    """Return the variants of a study as (model, scheme): models in their order, then schemes in theirs."""
    return list(product(config["study"]["models"], config["study"]["schemes"]))


def grid_variants(config: Config) -> list[tuple[str, str]]:
    """Return the variants of the study's grids of schemes as (model, scheme), in the order of `variants_of`."""
    return list(product(config["study"]["models"], grid_schemes(config)))


def of_variants(config: Config, pattern: str) -> list[str]:
    """Return a path for every variant of the study, from a pattern with {model} and {scheme}."""
    return [pattern.format(model=model, scheme=scheme) for model, scheme in variants_of(config)]


def dumped_datasets(config: Config) -> list[str]:
    """Return the datasets that features can be dumped of: all of the config, and what the workflow adds to them."""
    return [CANDIDATES, *config["datasets"]]


def is_embedded(config: Config, dataset: str) -> bool:
    """Return whether the workflow writes a dataset; the others lie in files that the config names."""
    return dataset == CANDIDATES or config["datasets"][dataset]["format"] == EMBEDDED


def is_divided(config: Config, dataset: str) -> bool:
    """Return whether the questions of a dataset lie in one set of files, which is divided by image."""
    return dataset != CANDIDATES and bool(config["datasets"][dataset].keys() & {"split", "split_file"})


def brought_groupings(config: Config) -> list[str]:
    """Return the groupings of questions that no questions table has, and that files of the datasets bring."""
    return [name for name in config["evaluation"]["groups"] if name not in GROUPINGS]


def groupings_of(config: Config) -> list[str]:
    """Return the columns by which questions are grouped.

    Parameters
    ----------
    config : mapping
        As the schema allows it.

    Returns
    -------
    list of str
        `evaluation.groups`; in the place of null those that the ID dataset has of itself.
    """
    given: list[str] | None = config["evaluation"]["groups"]
    return own_groupings(config, config["study"]["id_dataset"]) if given is None else given


def datasets_with_groups(config: Config) -> list[str]:
    """Return the datasets of the study that bring groups of their questions, if it groups questions by any of them."""
    return [name for name in datasets_of(config) if brought_groupings(config) and "groups" in config["datasets"][name]]


def splits_of(dataset: Config) -> tuple[str, ...] | None:
    """Return the splits that a dataset has, or None where only its split file knows.

    Parameters
    ----------
    dataset : mapping
        Its section of the config.
    """
    if dataset["format"] == EMBEDDED:
        if "captions" not in dataset:
            return (SHIFT_SPLIT,)
        return tuple(split for split in ID_SPLITS if split in dataset["images"])
    if "split_file" in dataset:
        return None
    if "split" in dataset:
        return tuple(split for split in ID_SPLITS if dataset["split"][split] > 0)
    return tuple(split for split in ID_SPLITS if split in dataset.get("splits", {}))


def base_name(config: Config, model: str) -> str:
    """Return the name of a model, or of the one that it is a stressed form of."""
    return config["models"][model].get("stress", {}).get("model", model)


def base_model(config: Config, model: str) -> Config:
    """Return the section of the config of a model, or of the one that it is a stressed form of."""
    return config["models"][base_name(config, model)]


def models_with(config: Config, key: str) -> list[str]:
    """Return the models whose section of the config has a key: `source`, `training` or `stress`."""
    return [name for name, model in config["models"].items() if key in model]


def scheme_of(config: Config, scheme: str) -> Scheme:
    """Return the scheme of a name: of the config's table, or of the name itself."""
    return resolve_scheme(scheme, config["schemes"].get(scheme))


def external_schemes(config: Config) -> list[str]:
    """Return the schemes whose checkpoints others quantized."""
    return [name for name, table in config["schemes"].items() if EXTERNAL in table]


def external_folder(config: Config, model: str, scheme: str) -> str:
    """Return the folder of a variant that others quantized."""
    path: str = config["schemes"][scheme][EXTERNAL]
    return path.replace(MODEL_IN_PATH, model)


def reads_calibration(config: Config, scheme: str) -> bool:
    """Return whether quantizing under a scheme reads the calibration table."""
    return scheme_of(config, scheme).needs_calibration


def estimators_of(config: Config) -> dict[str, list[str]]:
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


def judged_risks(config: Config) -> list[float]:
    """Return the risk limits at which schemes are held against the shipping criterion, from the lowest on.

    Parameters
    ----------
    config : mapping
        As the schema allows it.

    Returns
    -------
    list of float
        `report.shipping.risks`; in the place of null the certified limits of the grid, and that of the criterion.
    """
    shipping = config["report"]["shipping"]
    if shipping["risks"] is not None:
        return sorted(shipping["risks"])
    grid = risk_limits(**config["report"]["limits"])
    return sorted({shipping["risk"], *(risk for risk in config["certification"]["risks"] if risk in grid)})


def declared_for_bundles(config: Config) -> dict[str, list[Any]]:
    """Return what may ship, among which delta is shared.

    Parameters
    ----------
    config : mapping
        As the schema allows it.

    Returns
    -------
    dict of str to list
        `schemes`, `estimators` and `risks`: the config's own lists; in the place of null all schemes of the study, and
        the estimators and limits of the shipping criterion, the limits from the highest to the lowest.
    """
    in_place_of_null = {
        "schemes": list(config["study"]["schemes"]),
        "estimators": estimators_of(config)["shipping"],
        "risks": judged_risks(config)[::-1],
    }
    return {key: left if (own := config["bundles"][key]) is None else own for key, left in in_place_of_null.items()}


def bundle_choice(config: Config) -> dict[str, Any]:
    """Return the estimator of a bundle, and the risk limit that it keeps where none is asked for.

    Parameters
    ----------
    config : mapping
        As the schema allows it.

    Returns
    -------
    dict
        `estimator` and `risk`: the config's own; in the place of null the first estimator that may ship, and the limit
        of the shipping criterion if it may be chosen, else the first that may.
    """
    section, declared = config["bundles"], declared_for_bundles(config)
    usual = config["report"]["shipping"]["risk"]
    in_place_of_null = {
        "estimator": declared["estimators"][0],
        "risk": usual if usual in declared["risks"] else declared["risks"][0],
    }
    return {key: left if section[key] is None else section[key] for key, left in in_place_of_null.items()}


def scored_estimators(config: Config) -> list[str]:
    """Return the estimators that the scores hold; calibrated ones are fitted to them by the evaluation."""
    return list(dict.fromkeys(name.split("+")[0] for name in config["study"]["estimators"]))


def downloads_of(config: Config) -> dict[str, int | None]:
    """Return what `snakemake download` gets for a study, by name, with the bytes that the config states or None."""
    sections = [
        *(config["datasets"][dataset] for dataset in datasets_of(config)),
        config["calibration"],
        *(config["models"][model] for model in config["study"]["models"]),
    ]
    names = dict.fromkeys(name for section in sections for name in section.get("downloads", []))
    return {name: config["downloads"][name].get("bytes") for name in names}
