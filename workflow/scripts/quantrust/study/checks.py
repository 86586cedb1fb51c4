"""What a schema cannot say of a config: a check for every section that needs one.

A check takes the whole config, which the schema allows, and yields a line for every fault: the key's path, its value
and what is allowed there.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from quantrust.confidence.available import available_estimators
from quantrust.confidence.catalogue import COMPARED, OF_ONE_NETWORK, check_estimator
from quantrust.data.format import format_names, load_format
from quantrust.data.groupings import GROUPINGS, KEYS
from quantrust.errors import QuantrustError
from quantrust.evaluation.limits import risk_limits
from quantrust.models.processor_settings import (
    attentions,
    blocks_in_connector,
    has_language_model,
    matches,
    published_image_tokens,
    unknown_settings,
    unsupported,
)
from quantrust.quantization.factorial import designs_of, factorial_faults
from quantrust.quantization.scheme import EXTERNAL, UNQUANTIZED, is_scheme_word, parse_scheme, resolve_scheme
from quantrust.report.contents import datasets_of, own_groupings
from quantrust.study.contents import (
    CANDIDATES,
    EMBEDDED,
    ID_SPLITS,
    MODEL_IN_PATH,
    SHIFT_SPLIT,
    declared_for_bundles,
    estimators_of,
    judged_risks,
    reads_calibration,
    splits_of,
)
from quantrust.study.inputs import id_splits, task_of
from quantrust.study.schema import shown
from quantrust.tasks.task import load_task

MOST_LIMITS = 1000
"""Risk limits of the decision table."""

OF_LANGUAGE_MODELS = ("language", "head")
"""Components that no model without a language model has."""

Config = Mapping[str, Any]
Faults = Iterator[str]


def study_faults(config: Config) -> Faults:
    """Yield what is wrong with a config that the schema allows, section by section."""
    for check in CHECKS:
        yield from check(config)


def _models_of_the_study(config: Config) -> Faults:
    yield from _unknown_names("study.models", config["study"]["models"], config["models"], "models")


def _schemes_of_the_study(config: Config) -> Faults:
    tables = config["schemes"]
    for number, name in enumerate(config["study"]["schemes"]):
        if name in tables:
            # What is wrong with a table is said once, whoever names it.
            continue
        for fault in _scheme_faults(name, None):
            known = f"; or a name under schemes: {', '.join(tables)}" if tables else ""
            yield f"study.schemes[{number}] is {name!r}: {fault}{known}"


def _tasks(config: Config) -> Faults:
    """Yield the models of the study that cannot do the task of one of its datasets."""
    for number, model in enumerate(config["study"]["models"]):
        if (family := _families(config).get(model)) is None:
            continue
        for dataset, task in _tasks_of(config).items():
            if load_task(task).matches == matches(family):
                continue
            does = "matches images with texts" if matches(family) else "writes answers"
            yield (
                f"study.models[{number}] is {model!r}, a {family} model, which {does}, but {dataset} is of the task "
                f"{task}; allowed: models and datasets that go together"
            )
            break


def _items(config: Config) -> Faults:
    """Yield the shifts whose items are of another sort than those of the ID dataset, which they are mixed with."""
    study, tasks = config["study"], _tasks_of(config)
    if study["id_dataset"] not in tasks:
        return
    own = tasks[study["id_dataset"]]
    for number, name in enumerate(study["shifts"]):
        if name in tasks and load_task(tasks[name]).item != load_task(own).item:
            yield (
                f"study.shifts[{number}] is {name!r}, of the task {tasks[name]}, but the ID dataset "
                f"{study['id_dataset']} is of the task {own}; allowed: datasets whose items can be mixed: each a "
                f"{load_task(own).item}"
            )


def _tasks_of(config: Config) -> dict[str, str]:
    """Return the tasks of the datasets of the study that are there, and in a format that is known."""
    found = {}
    for name in datasets_of(config):
        dataset = config["datasets"].get(name)
        if dataset is not None and (dataset["format"] in format_names() or "seed" in dataset):
            found[name] = task_of(config, name)
    return found


def _id_dataset(config: Config) -> Faults:
    name, datasets = config["study"]["id_dataset"], config["datasets"]
    if name not in datasets:
        yield f"study.id_dataset is {name!r}; allowed: a name under datasets: {', '.join(datasets)}"
        return
    needed = id_splits(config) if name in _tasks_of(config) else ID_SPLITS
    if lacking := _splits_lacking(datasets[name], needed):
        yield (
            f"study.id_dataset is {name!r}, which has no split {lacking[0]}; allowed: a dataset with the splits "
            f"{', '.join(needed)}"
        )


def _shifts(config: Config) -> Faults:
    study, datasets = config["study"], config["datasets"]
    yield from _unknown_names("study.shifts", study["shifts"], datasets, "datasets")
    for number, name in enumerate(study["shifts"]):
        if name == study["id_dataset"]:
            yield f"study.shifts[{number}] is {name!r}, which is the ID dataset; allowed: any other dataset"
        elif name in datasets and _splits_lacking(datasets[name], (SHIFT_SPLIT,)):
            yield f"study.shifts[{number}] is {name!r}, which has no split {SHIFT_SPLIT}; allowed: a dataset with one"


def _estimators_of_the_study(config: Config) -> Faults:
    estimators = config["study"]["estimators"]
    for number, name in enumerate(estimators):
        try:
            check_estimator(name)
        except QuantrustError as error:
            yield f"study.estimators[{number}] is {name!r}: {error}"
    matched = [name for name, task in _tasks_of(config).items() if load_task(task).matches]
    lacking = [name for name in estimators if name.split("+")[0] not in available_estimators(bool(matched))]
    if matched and lacking:
        yield (
            f"study.estimators has {', '.join(lacking)}, which read written answers, but the answers to {matched[0]} "
            f"are found and not written; allowed: {', '.join(available_estimators(matches=True))}"
        )
    elif not matched and (unread := [name for name in estimators if name in available_estimators(matches=True)]):
        yield f"study.estimators has {unread[0]!r}, which reads the scores of matches; allowed: where answers are found"
    if not matched and not {*COMPARED} & {*estimators}:
        yield (
            f"study.estimators is {estimators}; allowed: a list with {' or '.join(COMPARED)} in it, which the figures "
            "and the tables of a paper show"
        )


def _schemes(config: Config) -> Faults:
    study = config["study"]
    for name, table in config["schemes"].items():
        yield from _scheme_faults(name, table)
        shared = MODEL_IN_PATH not in table.get(EXTERNAL, MODEL_IN_PATH) and len(study["models"]) > 1
        if shared and name in study["schemes"]:
            yield (
                f"schemes.{name}.{EXTERNAL} is {table[EXTERNAL]!r}, one folder for all of study.models; allowed: a "
                f"path with {MODEL_IN_PATH}, which stands for the name of the model"
            )


def _factorial(config: Config) -> Faults:
    faults = [*factorial_faults(config)]
    yield from faults
    if faults:
        return
    for design in designs_of(config):
        for cell in design.cells():
            name = design.scheme(cell)
            table = config["schemes"].get(name, design.table(cell))
            if table != design.table(cell):
                yield f"schemes.{name} is the name of a cell of factorial.{design.name}; allowed: another name"
            found = [] if name == UNQUANTIZED else [*_scheme_faults(name, design.table(cell))]
            if found:
                # What is wrong with one cell is wrong with most of them.
                yield f"factorial.{design.name}: {found[0]}"
                break


def _models(config: Config) -> Faults:
    models = config["models"]
    for name, model in models.items():
        if "family" in model:
            yield from _family_faults(f"models.{name}", model)
        if "stress" in model:
            yield from _stress_faults(f"models.{name}", model, models)
        yield from _unknown_downloads(f"models.{name}", model, config)


def _family_faults(path: str, model: Mapping[str, Any]) -> Faults:
    if (fault := unsupported(model["family"])) is not None:
        yield f"{path}.family: {fault}"
        return
    if matches(model["family"]) and "prompt" in model:
        yield f"{path}.prompt is given; allowed: nothing, a {model['family']} model is not asked anything"
    for fault in unknown_settings(model["family"], model.get("processor", {})):
        yield f"{path}.processor: {fault}"


def _stress_faults(path: str, model: Mapping[str, Any], models: Mapping[str, Any]) -> Faults:
    """Yield what a model with outlier channels cannot have: it is written in the layout of the embedded models."""
    base = models.get(model["stress"]["model"], {})
    if "source" not in base:
        known = ", ".join(name for name, other in models.items() if "source" in other)
        yield f"{path}.stress.model is {model['stress']['model']!r}; allowed: a model with a source: {known}"
    for key in ("processor", "chat_template", "prompt", "base_model", "license"):
        if key in model:
            yield f"{path}.{key} is given beside stress; allowed: with source only"
    for key in ("processor", "chat_template"):
        if key in base:
            yield f"{path}.stress.model is {model['stress']['model']!r}, which has {key}; allowed: a model without one"


def _prompts(config: Config) -> Faults:
    """Yield the prompts that hold a token of the image of a model that is asked with them."""
    models = config["models"]
    families = {name: model["family"] for name, model in models.items() if unsupported(model.get("family")) is None}
    studied = {models.get(name, {}).get("stress", {}).get("model", name) for name in config["study"]["models"]}
    prompts = {"features.prompt": (config["features"]["prompt"], studied)}
    prompts |= {f"datasets.{name}.prompt": (part.get("prompt"), studied) for name, part in config["datasets"].items()}
    prompts |= {f"models.{name}.prompt": (part.get("prompt"), {name}) for name, part in models.items()}
    for path, (prompt, asked) in prompts.items():
        tokens = {token for name in asked if name in families for token in published_image_tokens(families[name])}
        for token in sorted(token for token in tokens if token in (prompt or "")):
            yield f"{path} is {shown(prompt)}, which holds {token!r}; allowed: a text without a token of the image"


def _families(config: Config) -> dict[str, str]:
    """Return the family of each model of the study that has one with an adapter; a stressed model has its base's."""
    models, found = config["models"], {}
    for name in config["study"]["models"]:
        model = models.get(name, {})
        family = models.get(model.get("stress", {}).get("model"), model).get("family")
        if unsupported(family) is None:
            found[name] = family
    return found


def _parts_that_models_lack(config: Config) -> Faults:
    """Yield what names a language model, or thirds or layer types of a connector, that a model of the study lacks."""
    families = _families(config)
    mute = [(name, family) for name, family in families.items() if not has_language_model(family)]
    whole = [(name, family) for name, family in families.items() if not blocks_in_connector(family)]
    tables = {f"schemes.{name}.table": config["schemes"].get(name, {}) for name in config["study"]["schemes"]}
    rows = {path: scheme.get("table", []) for path, scheme in tables.items()}
    rows |= {f"factorial.{name}.factors": section["factors"] for name, section in config["factorial"].items()}
    for path, parts in rows.items():
        for number, part in enumerate(parts):
            key = next((key for key in ("third", "layer_type") if part.get(key) is not None), None)
            if part["component"] == "connector" and key is not None and whole:
                yield (
                    f"{path}[{number}].{key} is {part[key]!r}; allowed: nothing, because the connector of "
                    f"{whole[0][0]}, a {whole[0][1]} model, has no blocks"
                )
            if part["component"] in OF_LANGUAGE_MODELS and mute:
                yield (
                    f"{path}[{number}].component is {part['component']!r}; allowed: vision, connector, embedding, "
                    f"because {mute[0][0]}, a {mute[0][1]} model, has no language model"
                )
    for number, name in enumerate(config["study"]["schemes"] if mute else ()):
        if is_scheme_word(name) and {row.component for row in parse_scheme(name).table} == {"language"}:
            yield (
                f"study.schemes[{number}] is {name!r}, which quantizes the language model alone; allowed: bf16, or "
                f"what ends in -mixed or -full, because {mute[0][0]}, a {mute[0][1]} model, has no language model"
            )


def _datasets(config: Config) -> Faults:
    if CANDIDATES in config["datasets"]:
        yield f"datasets.{CANDIDATES} is the name of a dataset that the workflow writes; allowed: another name"
    formats = format_names()
    for name, dataset in config["datasets"].items():
        # The schema knows the embedded datasets by their names, and only they have a seed.
        if dataset["format"] == EMBEDDED and "seed" in dataset:
            pass
        elif dataset["format"] not in formats:
            yield f"datasets.{name}.format is {dataset['format']!r}; allowed: {', '.join(formats)}"
        else:
            yield from _official_faults(f"datasets.{name}", dataset)
        if "adversary" in dataset and dataset["adversary"] not in config["models"]:
            yield (
                f"datasets.{name}.adversary is {dataset['adversary']!r}; allowed: a name under models: "
                f"{', '.join(config['models'])}"
            )
        yield from _unknown_downloads(f"datasets.{name}", dataset, config)


def _official_faults(path: str, dataset: Mapping[str, Any]) -> Faults:
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
    elif misplaced := [key for key in ("questions", "annotations", "images", "subset") if key in dataset]:
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
    chosen = [part for part, files in ({path: dataset} | parts).items() if "subset" in files]
    if not file_format.has_subsets:
        yield from (
            f"{part}.subset is given; allowed: nothing, the files of {dataset['format']} hold one split"
            for part in chosen
        )
    if load_task(file_format.task).matches:
        for key in ("prompt", "instruction", "max_new_tokens"):
            if key in dataset:
                yield f"{path}.{key} is given; allowed: nothing, no answer to {dataset['format']} is written"
    elif "instruction" in dataset and not file_format.may_be_mute:
        yield f"{path}.instruction is given; allowed: nothing, {dataset['format']} has a question about every image"
    if "split" in dataset:
        total = sum(dataset["split"][split] for split in ID_SPLITS)
        if abs(total - 1) > 1e-9:
            yield f"{path}.split has shares that sum to {total:g}; allowed: shares that sum to 1"


def _calibration(config: Config) -> Faults:
    calibration, id_dataset = config["calibration"], config["study"]["id_dataset"]
    yield from _unknown_downloads("calibration", calibration, config)
    if calibration["source"] is not None or id_dataset not in config["datasets"] or not _reads_calibration(config):
        return
    dataset = config["datasets"][id_dataset]
    if "captions" not in dataset:
        yield (
            f"calibration.source is null, but the methods of the study read image-caption pairs, and the ID dataset "
            f"{id_dataset} has none; set calibration.source to a captions file and the folder of its images"
        )
    elif calibration["samples"] > dataset["captions"]:
        yield (
            f"calibration.samples is {calibration['samples']}; allowed: at most {dataset['captions']}, which is "
            f"datasets.{id_dataset}.captions"
        )


def _reads_calibration(config: Config) -> bool:
    """Return whether a scheme of the study that can be read needs calibration; what is wrong with others is said."""
    valid = [name for name in config["study"]["schemes"] if not [*_scheme_faults(name, config["schemes"].get(name))]]
    return any(reads_calibration(config, name) for name in valid)


def _compute(config: Config) -> Faults:
    compute, dtype = config["compute"], config["features"]["dtype"]
    if compute["attention"] != "flash_attention_2":
        return
    if compute["device"] != "cuda":
        yield "compute.attention is 'flash_attention_2'; allowed: eager, sdpa, as compute.device is not cuda"
    if dtype != "bfloat16":
        yield f"features.dtype is {dtype!r}; allowed: bfloat16, as compute.attention is flash_attention_2"
    for name, family in _families(config).items():
        if compute["attention"] not in (allowed := attentions(family)):
            yield (
                f"compute.attention is {compute['attention']!r}; allowed: {', '.join(allowed)}, as it cannot run parts "
                f"of {family}, the family of {name}"
            )


def _features(config: Config) -> Faults:
    features = config["features"]
    if features["shards"] > 1:
        for name, task in _tasks_of(config).items():
            if load_task(task).matches:
                yield (
                    f"features.shards is {features['shards']}; allowed: 1, as every query of {name} looks through all "
                    "of its split"
                )
                break
    if features["kernel"] == "packed" and features["dtype"] != "bfloat16":
        yield f"features.dtype is {features['dtype']!r}; allowed: bfloat16, as features.kernel is packed"


def _selector(config: Config) -> Faults:
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
                f"selector.learning_curve is {labels}; allowed: at most the dev questions of {study['id_dataset']}, "
                f"{asked}"
            )


def _evaluation(config: Config) -> Faults:
    shares = config["evaluation"]["id_shares"]
    if not {0, 1} <= set(shares):
        yield f"evaluation.id_shares is {shares}; allowed: shares that include 1 and 0, each dataset alone"
    yield from _too_few_resamples("evaluation", config)
    yield from _grouping_faults(config)


def _grouping_faults(config: Config) -> Faults:
    """Yield the groupings that neither the items of the ID dataset nor any file of groups can have."""
    names = [config["study"]["id_dataset"], *config["study"]["shifts"]]
    brought = any("groups" in config["datasets"].get(name, {}) for name in names)
    # What is wrong with the ID dataset itself is said elsewhere.
    own = own_groupings(config, names[0]) if names[0] in _tasks_of(config) else GROUPINGS
    for number, name in enumerate(config["evaluation"]["groups"] or []):
        path = f"evaluation.groups[{number}] is {name!r}"
        if name in KEYS:
            yield f"{path}, which tells questions apart and does not group them; allowed: a column of groups"
        elif name in GROUPINGS and name not in own:
            yield (
                f"{path}, which nothing in {names[0]} has; allowed: {_first(own)}a column of a file under "
                "datasets.<name>.groups"
            )
        elif name not in GROUPINGS and not brought:
            yield (
                f"{path}; allowed: {_first(own)}a column of a file under datasets.<name>.groups, which "
                "no dataset of the study has"
            )


def _first(names: Sequence[str]) -> str:
    """Return names that another possibility follows in a sentence."""
    return f"{', '.join(names)}, or " if names else ""


def _certification(config: Config) -> Faults:
    estimators = estimators_of(config)["certification"]
    yield from _unknown_names("certification.estimators", estimators, config["study"]["estimators"], "study.estimators")


def _bundles(config: Config) -> Faults:
    section, study = config["bundles"], config["study"]
    yield from _unknown_names("bundles.schemes", section["schemes"] or [], study["schemes"], "study.schemes")
    estimators, certified = section["estimators"] or [], estimators_of(config)["certification"]
    yield from _unknown_names("bundles.estimators", estimators, certified, "certification.estimators")
    limits = risk_limits(**config["report"]["limits"])
    for number, risk in enumerate(section["risks"] or []):
        # What is wrong with the limits themselves is said of the report.
        if limits and risk not in limits:
            yield f"bundles.risks[{number}] is {risk}; allowed: one of report.limits: {', '.join(map(str, limits))}"
    declared = declared_for_bundles(config)
    for key, names in (("estimator", declared["estimators"]), ("risk", declared["risks"])):
        if section[key] is not None and section[key] not in names:
            yield f"bundles.{key} is {section[key]!r}; allowed: one of bundles.{key}s: {', '.join(map(str, names))}"


def _comparison(config: Config) -> Faults:
    estimators = estimators_of(config)["comparison"]
    yield from _unknown_names("comparison.estimators", estimators, config["study"]["estimators"], "study.estimators")
    yield from _too_few_resamples("comparison", config)


def _report(config: Config) -> Faults:
    computed = config["evaluation"]["risks"]
    for number, risk in enumerate(config["report"]["risks"]):
        if risk not in computed:
            yield f"report.risks[{number}] is {risk}; allowed: one of evaluation.risks: {', '.join(map(str, computed))}"
    limits = risk_limits(**config["report"]["limits"])
    if not 0 < len(limits) <= MOST_LIMITS:
        yield (
            f"report.limits are {len(limits):,} limits; allowed: 1 to {MOST_LIMITS:,}, from the lowest to a highest "
            "that is not below it"
        )
        return
    estimators, shipping = estimators_of(config), config["report"]["shipping"]
    yield from _unknown_names(
        "report.shipping.estimators", estimators["shipping"], estimators["certification"], "certification.estimators"
    )
    given = {"risk": shipping["risk"]}
    given |= {f"risks[{number}]": risk for number, risk in enumerate(shipping["risks"] or [])}
    for place, risk in given.items():
        if risk not in limits:
            yield f"report.shipping.{place} is {risk}; allowed: one of report.limits: {', '.join(map(str, limits))}"
    judged = judged_risks(config)
    if shipping["risk"] not in judged:
        yield (
            f"report.shipping.risk is {shipping['risk']}; allowed: one of report.shipping.risks: "
            f"{', '.join(map(str, judged))}"
        )


CHECKS: tuple[Callable[[Config], Faults], ...] = (
    _models_of_the_study,
    _schemes_of_the_study,
    _tasks,
    _items,
    _id_dataset,
    _shifts,
    _estimators_of_the_study,
    _schemes,
    _factorial,
    _models,
    _prompts,
    _parts_that_models_lack,
    _datasets,
    _calibration,
    _compute,
    _features,
    _selector,
    _evaluation,
    _certification,
    _bundles,
    _comparison,
    _report,
)


def _scheme_faults(name: str, table: Mapping[str, Any] | None) -> Faults:
    try:
        resolve_scheme(name, table)
    except QuantrustError as error:
        yield str(error)


def _splits_lacking(dataset: Mapping[str, Any], needed: Iterable[str]) -> list[str]:
    splits = splits_of(dataset)
    return [] if splits is None else [split for split in needed if split not in splits]


def _too_few_resamples(section: str, config: Config) -> Faults:
    resamples, members = config[section]["resamples"], config["selector"]["members"]
    learned = {name.split("+")[0] for name in config["study"]["estimators"]} & {*OF_ONE_NETWORK}
    if learned and resamples < members:
        yield (
            f"{section}.resamples is {resamples}; allowed: at least selector.members, {members}, each of which is drawn"
        )


def _unknown_downloads(path: str, section: Mapping[str, Any], config: Config) -> Faults:
    yield from _unknown_names(f"{path}.downloads", section.get("downloads", []), config["downloads"], "downloads")


def _unknown_names(path: str, names: Iterable[str], known: Collection[str], section: str) -> Faults:
    for number, name in enumerate(names):
        if name not in known:
            yield f"{path}[{number}] is {name!r}; allowed: a name under {section}: {', '.join(known)}"
