"""What jobs are given beside files: the parts of a config on which their results depend, and no others.

A change of one of these values, and of nothing else in the config, runs the jobs again that are given it.
"""

from dataclasses import asdict
from typing import Any

from jinja2 import StrictUndefined, Template

from quantrust.errors import QuantrustError
from quantrust.models.processor_settings import max_aspect_ratio as max_aspect_ratio_of_families
from quantrust.quantization.factorial import grids_for_tables
from quantrust.quantization.scheme import UNQUANTIZED
from quantrust.report.contents import datasets_of, figures_of, has_probabilities, learning_estimators
from quantrust.report.item_words import words_for
from quantrust.study import paths
from quantrust.study.contents import (
    CANDIDATES,
    LANGUAGE_SHIFT,
    SHIFT_SPLIT,
    Config,
    base_model,
    base_name,
    is_embedded,
    variants_of,
)
from quantrust.study.inputs import corpus_metrics_of, id_splits, matches, task_of
from quantrust.study.places import CAPTIONS
from quantrust.tasks.task import BARE, how_asked, load_task

SPREAD = ("workers", "shards")
"""Keys of `features` that say how the work is spread, on which no answer depends."""
OF_ANSWERS, OF_MATCHES = ("prompt", "max_new_tokens", "top_k"), ("rerank",)
"""Keys of `features` that only answers depend on, which are written, and those that only matches depend on."""


def dataset(config: Config, dataset: str) -> dict[str, Any]:
    """Return what a dataset's writer is given: its section of the config, less what only others read."""
    if dataset == CANDIDATES:
        language = config["datasets"][LANGUAGE_SHIFT]
        return {key: language[key] for key in ("images", "questions_per_image", "seed")}
    section = config["datasets"][dataset]
    return {key: value for key, value in section.items() if key not in ("format", "groups", "prompt")}


def division(config: Config, dataset: str) -> dict[str, Any]:
    """Return how a dataset is divided by image: shares and a seed, or a file and the splits that the study reads."""
    section = config["datasets"][dataset]
    if "split" in section:
        return dict(section["split"])
    splits = id_splits(config) if dataset == config["study"]["id_dataset"] else (SHIFT_SPLIT,)
    return {"file": section["split_file"], "splits": splits}


def max_aspect_ratio(config: Config, dataset: str) -> float | None:
    """Return the longer side of images over the shorter one, up to which all models of the study read them.

    Embedded images are square. Their questions are not read anew for another choice of models.
    """
    if is_embedded(config, dataset):
        return None
    return max_aspect_ratio_of_families(base_model(config, model)["family"] for model in config["study"]["models"])


def prompt(config: Config, model: str, dataset: str) -> str:
    """Return the user's text around `{question}`, as a model is asked the questions of a dataset."""
    text: str = features(config, model, dataset).get("prompt", BARE)
    return text


def download(config: Config, download: str) -> dict[str, Any]:
    """Return what a download is given; only a resource plan reads how large it is."""
    return {key: value for key, value in config["downloads"][download].items() if key != "bytes"}


def scheme_table(config: Config, scheme: str) -> dict[str, Any] | None:
    """Return what the config has under the name of a scheme; nothing for a name that says everything itself."""
    return config["schemes"].get(scheme)


def stress(config: Config, model: str) -> dict[str, Any]:
    """Return how the channels of a stressed model are scaled."""
    return {key: config["models"][model]["stress"][key] for key in ("share", "factor")}


def calibration_source(config: Config) -> dict[str, str]:
    """Return the captions file of the calibration, the folder of its images, and what their paths must begin with."""
    source = config["calibration"]["source"]
    if source is not None:
        return dict(source)
    folder = paths.EMBEDDED_DATASET.format(dataset=config["study"]["id_dataset"])
    return {"captions": f"{folder}/captions.json", "images": f"{folder}/images"}


def activation_memory(config: Config) -> dict[str, int]:
    """Return the resource of host memory for activations in MB, where the config says how much."""
    gigabytes = config["calibration"]["activations_gb"]
    return {} if gigabytes is None else {"activations_mb": round(1000 * gigabytes)}


def features(config: Config, model: str, dataset: str) -> dict[str, Any]:
    """Return what a variant's answers to a dataset may depend on."""
    is_matched = matches(config, dataset)
    other = OF_ANSWERS if is_matched else OF_MATCHES
    kept = {key: value for key, value in config["features"].items() if key not in (*SPREAD, *other)}
    if is_matched:
        return {**kept, **config["compute"]}
    # The candidates of a dataset have no section in the config.
    sections = (config["datasets"].get(dataset, {}), base_model(config, model), config["features"])
    return {**kept, **config["compute"], **how_asked(load_task(task_of(config, dataset)), *sections)}


def selector(config: Config) -> dict[str, Any]:
    """Return how Selectors are trained; on what parts of dev more of them are trained does not count."""
    return {key: value for key, value in config["selector"].items() if key != "learning_curve"}


def evaluation(config: Config) -> dict[str, Any]:
    """Return what every variant's evaluation is given."""
    section = config["evaluation"]
    return {
        "id_dataset": config["study"]["id_dataset"],
        "estimators": config["study"]["estimators"],
        "risks": section["risks"],
        "costs": section["costs"],
        "resamples": section["resamples"],
        "level": section["confidence_level"],
        "seed": config["seed"],
    }


def breakdown(config: Config) -> dict[str, Any]:
    """Return what every variant's breakdown by kind of question is given."""
    return {key: value for key, value in evaluation(config).items() if key != "costs"}


def learning(config: Config) -> dict[str, Any]:
    """Return what the comparison of Selectors on parts of dev with maxprob is given."""
    return {
        "estimators": learning_estimators(config),
        "id_dataset": config["study"]["id_dataset"],
        "metrics": [("aurc", None), ("ece", None), ("coverage_at_risk", max(config["report"]["risks"]))],
        "resamples": config["evaluation"]["resamples"],
        "seed": config["seed"],
        "level": config["evaluation"]["confidence_level"],
    }


def comparison(config: Config) -> dict[str, Any]:
    """Return what the comparison of variants and estimators is given."""
    coverages = [("coverage_at_risk", risk) for risk in config["report"]["risks"]]
    return {
        "pairs": _compared_pairs(config),
        "metrics": [
            ("accuracy", None),
            *((name, None) for name in corpus_metrics_of(config, datasets_of(config))),
            ("aurc", None),
            *([("ece", None)] if has_probabilities(config) else []),
            *coverages,
        ],
        "level": config["evaluation"]["confidence_level"],
    }


def resampling(config: Config) -> dict[str, Any]:
    """Return what every variant is resampled with: for all that it is compared by, and judged by."""
    compared, judged = comparison(config), shipping(config)
    estimators = [estimator for pair in compared["pairs"] for _, _, estimator in pair]
    metrics = list(compared["metrics"])
    schemes = config["study"]["schemes"]
    if UNQUANTIZED in schemes and len(schemes) > 1:
        estimators += judged["estimators"]
        metrics += [("coverage_at_risk", risk) for risk in judged["risks"]]
    return {
        "id_dataset": config["study"]["id_dataset"],
        "estimators": list(dict.fromkeys(estimators)),
        "metrics": list(dict.fromkeys(metrics)),
        "resamples": config["comparison"]["resamples"],
        "seed": config["seed"],
    }


def certification(config: Config) -> dict[str, Any]:
    """Return what every variant's certification is given."""
    return {"id_dataset": config["study"]["id_dataset"], "seed": config["seed"], **config["certification"]}


def decisions(config: Config) -> dict[str, Any]:
    """Return what the tabulation of every variant's thresholds is given."""
    return {
        "id_dataset": config["study"]["id_dataset"],
        **{key: config["certification"][key] for key in ("estimators", "delta", "splits")},
        "resamples": config["evaluation"]["resamples"],
        "level": config["evaluation"]["confidence_level"],
        "seed": config["seed"],
    }


def operating_points(config: Config, scheme: str) -> dict[str, Any]:
    """Return what the operating points of a variant are set and certified with.

    Of the other schemes that may ship only the number counts, so that a variant's certificates stay when another takes
    the place of one of them.
    """
    section = config["bundles"]
    return {
        "id_dataset": config["study"]["id_dataset"],
        "schemes": len(section["schemes"]),
        "ships": scheme in section["schemes"],
        **{key: section[key] for key in ("estimators", "risks", "delta")},
        "resamples": config["evaluation"]["resamples"],
        "level": config["evaluation"]["confidence_level"],
        "seed": config["seed"],
    }


def bundle(config: Config, model: str) -> dict[str, Any]:
    """Return what is decided about the bundles of a model, and what their cards say of it."""
    if matches(config, dataset := config["study"]["id_dataset"]):
        raise QuantrustError(
            f"{model} cannot be bundled: it matches the images and texts of {dataset}, and answers nothing by itself; "
            "bundle a model that writes answers"
        )
    section = base_model(config, model)
    hubs = [config["downloads"][name].get("hub", {}) for name in section.get("downloads", [])]
    repositories = [hub["repository"] for hub in hubs if hub.get("kind") == "model"]
    return {
        "estimator": config["bundles"]["estimator"],
        "risk": config["bundles"]["risk"],
        "base_model": section.get("base_model", repositories[0] if repositories else base_name(config, model)),
        "license": section.get("license"),
    }


def shipping(config: Config) -> dict[str, Any]:
    """Return what the judgement of schemes is given; with which limit the page starts does not count."""
    return {
        "reference": UNQUANTIZED,
        **{key: config["report"]["shipping"][key] for key in ("estimators", "risks", "keeps")},
        "level": config["evaluation"]["confidence_level"],
        "corpus_metrics": corpus_metrics_of(config, datasets_of(config)),
    }


def components(config: Config) -> dict[str, Any]:
    """Return what the study of components is given."""
    return {
        **_held_against_unquantized(config),
        "resamples": config["evaluation"]["resamples"],
        "cost": max(config["evaluation"]["costs"]),
        "designs": grids_for_tables(config),
        "corpus_metrics": corpus_metrics_of(config, [config["study"]["id_dataset"]]),
    }


def drift(config: Config) -> dict[str, Any]:
    """Return what the measuring of drift from the unquantized model is given."""
    return {
        "reference": UNQUANTIZED,
        "id_dataset": config["study"]["id_dataset"],
        "datasets": datasets_of(config),
        "estimators": config["comparison"]["estimators"],
        "resamples": config["evaluation"]["resamples"],
        "level": config["evaluation"]["confidence_level"],
        "seed": config["seed"],
    }


def fairness(config: Config) -> dict[str, Any]:
    """Return what the judgement of groups of questions is given."""
    return {
        **_held_against_unquantized(config),
        "resamples": config["comparison"]["resamples"],
        "groupings": config["evaluation"]["groups"],
    }


def examples(config: Config) -> dict[str, Any]:
    """Return what the choice of example questions is given."""
    criterion = config["report"]["shipping"]
    return {
        "id_dataset": config["study"]["id_dataset"],
        "estimator": criterion["estimators"][0],
        "risk": criterion["risk"],
        "each": config["report"]["examples"],
        "seed": config["seed"],
        "matched": matches(config, config["study"]["id_dataset"]),
    }


def words(config: Config) -> dict[str, str]:
    """Return what the report calls the items of the ID dataset, and the quality of answers to them."""
    task = load_task(task_of(config, config["study"]["id_dataset"]))
    return asdict(words_for(task.item, task.quality_name))


def shown_config(config: Config) -> dict[str, Any]:
    """Return the config as the page shows it: of models, datasets, schemes and downloads only what the study uses.

    What bundles are written with unless something else is asked for changes nothing that the page says.
    """
    models = [*config["study"]["models"], *(base_name(config, model) for model in config["study"]["models"])]
    used = {"models": models, "datasets": datasets_of(config), "schemes": config["study"]["schemes"], "downloads": []}
    declared = {key: value for key, value in config["bundles"].items() if key not in ("estimator", "risk")}
    return _in_order(
        {
            section: (
                {name: part for name, part in content.items() if name in used[section]} if section in used else content
            )
            for section, content in {**config, "bundles": declared}.items()
        }
    )


def figure_captions(config: Config) -> dict[str, str]:
    """Return the captions of the study's figures, by name, as the report that Snakemake writes has them.

    Raises
    ------
    QuantrustError
        If a figure has no file with its caption.
    """
    captions = {}
    for figure in figures_of(config):
        path = CAPTIONS / f"{figure.name}.rst"
        if not path.is_file():
            raise QuantrustError(
                f"{path}: no such file; expected the caption of the figure {figure.name}, which is an entry in "
                "quantrust/report/contents.py: write it beside the others"
            )
        text = path.read_text(encoding="utf-8")
        known = {"config": config, "params": {"words": words(config)}}
        captions[figure.name] = Template(text, undefined=StrictUndefined).render(snakemake=known)
    return captions


def _held_against_unquantized(config: Config) -> dict[str, Any]:
    """Return what is given to all that resamples schemes beside the unquantized one, at the limit of the page."""
    return {
        "reference": UNQUANTIZED,
        "estimators": config["report"]["shipping"]["estimators"],
        "id_dataset": config["study"]["id_dataset"],
        "level": config["evaluation"]["confidence_level"],
        "seed": config["seed"],
        "risk": config["report"]["shipping"]["risk"],
    }


def _compared_pairs(config: Config) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Return every quantized scheme and the unquantized one, under each estimator; and each estimator and maxprob."""
    study, estimators, variants = config["study"], config["comparison"]["estimators"], variants_of(config)
    schemes: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
        ((model, scheme, estimator), (model, UNQUANTIZED, estimator))
        for model, scheme in variants
        for estimator in estimators
        if scheme != UNQUANTIZED and UNQUANTIZED in study["schemes"]
    ]
    others = [
        ((*variant, estimator), (*variant, "maxprob"))
        for variant in variants
        for estimator in estimators
        if estimator != "maxprob" and "maxprob" in study["estimators"]
    ]
    return schemes + others


def _in_order(content: Any) -> Any:
    """Return a part of the config with its keys in alphabetical order: the order that overlays give says nothing."""
    if not isinstance(content, dict):
        return content
    return {key: _in_order(content[key]) for key in sorted(content)}
