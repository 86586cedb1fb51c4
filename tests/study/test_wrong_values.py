"""Wrong values of every type at every key of a config: one message that names the key, whatever the value."""

import copy
import datetime
import random
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from hunting import HUNTING
from quantrust.commands.numbers import MOST_RESAMPLES
from quantrust.errors import QuantrustError
from quantrust.study.config import check_config, completed
from quantrust.study.jobs import study_jobs
from study_workspace import ROOT

SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
Path = tuple[str | int, ...]

ENDLESS: list = []
ENDLESS.append(ENDLESS)
VALUES: list[Any] = [
    *(None, True, 0, 1, -1, 999_999_999, 10**30, 10**5000),
    *(0.5, 2.0, -0.5, 1e300, float("nan"), float("inf")),
    *("", "x", "1e-4", "{x}", "a\nb", "a\n", "../up", "a" * 10_000),
    *("\ud800", "\u00e9" * 130),
    *([], [None], ["x"], {}, {"x": 1}, {1: 2}),
    *(datetime.date(2020, 1, 1), b"x", ENDLESS),
]
# What else may stand at a key than values of the type of the example below.
ALTERNATIVES = {
    ("bundles", "estimator"): (type(None),),
    ("bundles", "estimators"): (type(None),),
    ("bundles", "risk"): (type(None),),
    ("bundles", "risks"): (type(None),),
    ("bundles", "schemes"): (type(None),),
    ("calibration", "activations_gb"): (type(None),),
    ("calibration", "source"): (type(None),),
    ("certification", "estimators"): (type(None),),
    ("comparison", "estimators"): (type(None),),
    ("features", "max_new_tokens"): (int,),
    ("features", "prompt"): (str,),
    ("report", "shipping", "estimators"): (type(None),),
    ("report", "shipping", "risks"): (type(None),),
}
# Keys whose text becomes a path or a part of one.
NAMES_A_PATH = {
    *("source", "chat_template", "questions", "annotations", "images", "split_file", "folder", "captions", "only"),
    *(
        "external",
        "image_name",
        "files",
        "models",
        "schemes",
        "shifts",
        "id_dataset",
        "adversary",
        "downloads",
        "model",
    ),
}
# The last is of 260 bytes, of which no file system makes a name.
UNFIT_FOR_PATHS = ("", "{x}", "a\nb", "a\n", "a" * 10_000, "\u00e9" * 130)


def whole_config() -> dict:
    """Return a config in which every key of the schema stands, with a value that is allowed there."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    files = {"questions": "own/q.json", "annotations": "own/a.json", "images": "own"}
    shares = {"dev": 0.4, "val": 0.1, "test": 0.5, "seed": 0}
    config["downloads"] = {
        "file": {"url": "https://example.org/a.zip", "unpack": True, "folder": "own", "bytes": 1000},
        "rows": {
            "hub": {"repository": "a/b", "revision": "main", "kind": "dataset", "files": ["x-*"]},
            "rows": "vqav2",
            "folder": "own/rows",
        },
    }
    config["factorial"]["parts"] = {
        "methods": ["hqq"],
        "group": 64,
        "symmetric": False,
        "levels": [3, 16],
        "factors": [
            {"component": "vision"},
            {"component": "connector"},
            {"component": "language", "third": "first", "layer_type": "mlp"},
        ],
        "fraction": [[3, 1, 2]],
    }
    config["factorial"]["sequential"] = {
        "methods": ["gptq"],
        "group": 64,
        "symmetric": False,
        "levels": [3, 16],
        "factors": [{"component": "vision"}, {"component": "language", "levels": [4, 16]}],
        "calibrated_on": "unquantized",
    }
    config["schemes"]["mix"] = {
        "method": "mbq",
        "group": 64,
        "symmetric": False,
        "error": "mae",
        "table": [{"component": "language", "third": "first", "layer_type": "mlp", "bits": 4}],
    }
    config["schemes"]["others"] = {"external": "own/{model}-awq"}
    config["models"]["own"] = {
        "source": "own/model",
        "family": "qwen2_vl",
        "downloads": ["file"],
        "processor": {"min_pixels": 3136, "max_pixels": 6272},
        "chat_template": "own/template.jinja",
        "prompt": "{question} Briefly.",
        "base_model": "some/model",
        "license": "apache-2.0",
    }
    config["models"]["tiles"] = {
        "source": "own/tiles",
        "family": "idefics3",
        "processor": {"do_image_splitting": True, "size": {"longest_edge": 364}},
    }
    config["models"]["wide"] = {"stress": {"model": "adversary", "share": 0.25, "factor": 8}}
    training = yaml.safe_load(SCHEMA.read_text())["properties"]["models"]["additionalProperties"]["properties"]
    for key, part in training["training"]["properties"].items():
        value: Any = 0.5 if key.endswith(("rate", "decay", "weight")) else max(1, part.get("minimum", 1))
        value = True if part.get("type") == "boolean" else part["enum"][0] if "enum" in part else value
        config["models"]["adversary"]["training"].setdefault(key, value)
    config["datasets"] |= {
        "captions": {
            "format": "coco_captions",
            "annotations": "own/a.json",
            "images": "own",
            "split": shares,
            "instruction": "Describe it.",
        },
        "pairs": {
            "format": "flickr30k",
            "splits": {
                split: {"annotations": "own/a.json", "images": "own", "subset": split} for split in ("val", "test")
            },
        },
        "chosen": {
            "format": "flickr30k",
            "annotations": "own/a.json",
            "images": "own",
            "split": shares,
            "subset": "test",
        },
        "divided": {
            "format": "vqav2",
            **files,
            "image_name": "{image_id:012d}.jpg",
            "split": shares,
            "size": 100,
            "downloads": ["file"],
        },
        "listed": {"format": "vqav2", **files, "split_file": "own/splits.csv"},
        "parts": {"format": "vqav2", "splits": {name: dict(files) for name in ("dev", "val", "test")}},
    }
    config["calibration"] |= {
        "source": {"captions": "own/c.json", "images": "own", "only": "coco/"},
        "downloads": ["file"],
        "activations_gb": 2.5,
    }
    config["features"]["top_k"] = 20
    config["evaluation"] |= {"id_shares": [1.0, 0.5, 0.0], "costs": [10.0, 100.0]}
    config["study"] |= {"schemes": ["bf16", "mix"], "models": ["qwen2-vl-tiny", "own"]}
    for section in (config["certification"], config["comparison"], config["report"]["shipping"]):
        section["estimators"] = ["maxprob"]
    config["report"]["shipping"]["risks"] = [0.05]
    config["bundles"] |= {"schemes": ["bf16"], "estimators": ["maxprob"], "risks": [0.05]}
    config["bundles"] |= {"estimator": "maxprob", "risk": 0.05}
    return config


def places(content: Any, path: Path = ()) -> Iterator[Path]:
    """Yield every place of a config below the whole; of a list the list and its first entry."""
    if path:
        yield path
    if isinstance(content, list):
        content = dict(enumerate(content[:1]))
    if isinstance(content, dict):
        for key, value in content.items():
            yield from places(value, (*path, key))


def at(content: Any, path: Path) -> Any:
    for key in path:
        content = content[key]
    return content


def with_value(config: dict, path: Path, value: Any) -> dict:
    changed = copy.deepcopy(config)
    at(changed, path[:-1])[path[-1]] = value
    return changed


def schema_keys(schema: dict, definitions: dict) -> set[str]:
    """Return the names of all keys that a schema allows, wherever they stand."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
    keys = set(schema.get("properties", {}))
    parts = [*schema.get("properties", {}).values(), *schema.get("anyOf", []), *schema.get("oneOf", [])]
    parts += [schema[name] for name in ("additionalProperties", "items") if isinstance(schema.get(name), dict)]
    return keys.union(*(schema_keys(part, definitions) for part in parts))


def is_wrong(path: Path, present: Any, value: Any) -> bool:
    """Whether a value is of a type that the key does not take, or text that no path may hold."""
    # In a list every place is as the list's key says.
    keys = tuple(key for key in path if isinstance(key, str))
    if type(value) in ALTERNATIVES.get(keys, ()):
        return False
    if isinstance(present, float) and type(value) in (int, float):
        # also where it is finite, a number may be too large; that is tried below
        return value != value or abs(value) == float("inf")
    if type(value) is not type(present):
        return True
    if value == "\ud800":
        return True
    return isinstance(value, str) and keys[-1] in NAMES_A_PATH and value in UNFIT_FOR_PATHS


def check(config: dict, path: Path, present: Any, value: Any) -> None:
    """Hold one value at one key: refused with one message that names the key, or fit to plan with."""
    # A part that several places share, such as an anchor, is changed at all of them.
    changed = with_value(config, path, value)
    try:
        check_config(changed, SCHEMA)
    except QuantrustError as error:
        message = str(error)
    else:
        assert not is_wrong(path, present, value), f"{path} may be {value!r}"
        study_jobs(completed(changed))
        return
    lines = message.splitlines()
    assert all(line.startswith("config: ") and len(line) < 2000 for line in lines), message
    first = next(key for key in path if isinstance(key, str))
    assert any(first in line for line in lines), message


CONFIG = whole_config()
CASES = [(path, number) for path in places(CONFIG) for number in range(len(VALUES))]


def test_the_whole_config_is_valid_and_has_every_key_of_the_schema() -> None:
    check_config(CONFIG, SCHEMA)
    schema = yaml.safe_load(SCHEMA.read_text())
    present = {key for path in places(CONFIG) for key in path if isinstance(key, str)}
    assert schema_keys(schema, schema["$defs"]) <= present


@pytest.mark.parametrize(("path", "number"), random.Random(0).sample(CASES, 250))
def test_a_value_is_refused_in_one_message_or_can_be_planned_with(path: Path, number: int) -> None:
    check(CONFIG, path, at(CONFIG, path), VALUES[number])


@pytest.mark.slow
@pytest.mark.hunt
def test_further_values_are_refused_in_one_message_or_can_be_planned_with() -> None:
    """In a hunt every value at every key, which takes five minutes of a core."""
    for path, number in CASES if HUNTING else random.Random(1).sample(CASES, 2000):
        check(CONFIG, path, at(CONFIG, path), VALUES[number])


INTEGERS = [path for path in places(CONFIG) if type(at(CONFIG, path)) is int]


@pytest.mark.parametrize("path", INTEGERS, ids=lambda path: ".".join(map(str, path)))
def test_a_whole_number_is_written_as_one_and_is_of_a_size_that_makes_sense(path: Path) -> None:
    for value in (float(at(CONFIG, path)), 10**30, True):
        with pytest.raises(QuantrustError, match="config: "):
            check_config(with_value(CONFIG, path, value), SCHEMA)


# What a job does in turn, or the workflow makes a file or a process for.
TAKEN_IN_TURN = [
    *(("evaluation", "resamples"), ("certification", "splits"), ("comparison", "resamples"), ("report", "examples")),
    *(("selector", "epochs"), ("selector", "members"), ("features", "shards"), ("features", "workers")),
    *(("features", "max_new_tokens"), ("datasets", "divided", "max_new_tokens"), ("datasets", "scenes", "captions")),
    *(path for path in INTEGERS if path[:2] == ("datasets", "scenes") and path[-1] in ("dev", "val", "test")),
    *(path for path in INTEGERS if path[-1] in ("questions_per_image", "images") or str(path[-1]).endswith("_steps")),
]


@pytest.mark.parametrize("path", TAKEN_IN_TURN, ids=lambda path: ".".join(map(str, path)))
def test_what_is_done_again_and_again_has_a_number_that_ends(path: Path) -> None:
    key = ".".join(map(str, path))
    with pytest.raises(QuantrustError, match=rf"config: {key} is 100000000; allowed: .* at most (a|ten|100,000)"):
        check_config(with_value(CONFIG, path, 10**8), SCHEMA)


def test_the_command_line_takes_as_many_resamples_as_the_config() -> None:
    drawn = yaml.safe_load(SCHEMA.read_text())["$defs"]["drawn"]
    assert drawn["maximum"] == MOST_RESAMPLES


@pytest.mark.parametrize("key", ["id_shares", "risks", "costs"])
def test_a_list_of_numbers_has_a_length_that_ends(key: str) -> None:
    with pytest.raises(
        QuantrustError, match=rf"config: evaluation\.{key} is .*; allowed: a list .* at most a thousand"
    ):
        check_config(with_value(CONFIG, ("evaluation", key), [k / 2000 for k in range(1, 2001)]), SCHEMA)


NUMBERS = [path for path in places(CONFIG) if type(at(CONFIG, path)) in (int, float)]


@pytest.mark.parametrize("path", NUMBERS, ids=lambda path: ".".join(map(str, path)))
def test_numbers_are_finite(path: Path) -> None:
    for value in (float("nan"), float("inf"), float("-inf"), 1e300):
        with pytest.raises(QuantrustError, match="config: "):
            check_config(with_value(CONFIG, path, value), SCHEMA)


def test_every_key_that_must_be_there_is_named_once() -> None:
    with pytest.raises(QuantrustError) as caught:
        check_config({}, SCHEMA)
    required = yaml.safe_load(SCHEMA.read_text())["required"]
    assert str(caught.value).splitlines() == sorted(f"config: {key} is missing" for key in required)
    assert {"schemes", "certification"} <= set(required)


MESSAGES = {
    "a date": (
        "seed: 2020-01-01",
        "config: seed is datetime.date(2020, 1, 1), which YAML reads as a date; allowed: text",
    ),
    "a key that is no text": ("study: {no: [a]}", "config: study has the key False, which YAML does not read as text"),
    "a number as text": (
        "selector: {learning_rate: 1e-4}",
        "selector.learning_rate is '1e-4'; allowed: a number above 0, at most a billion "
        "(YAML reads 1e-4 as text: write 1.0e-4)",
    ),
    "a float as a count": (
        "selector: {epochs: 2.0}",
        "config: selector.epochs is 2.0; allowed: a whole number from 1 on",
    ),
    "not a number": (
        "selector: {dropout: .nan}",
        "config: selector.dropout is nan; allowed: a number from 0 to below 1",
    ),
    "braces": ("report: {folder: 'a{x}'}", "config: report.folder is 'a{x}'; allowed: a folder below the project"),
    "a lone surrogate": (
        r'features: {prompt: "{question} \ud800"}',
        r"config: features.prompt is '{question} \ud800', which has a lone surrogate; allowed: Unicode text",
    ),
    "a name that no file system holds": (
        f"report: {{folder: mine/{'a' * 256}}}",
        f"config: report.folder is 'mine/{'a' * 114}...; allowed: a folder below the project",
    ),
    "a folder above": (
        "report: {folder: ../a}",
        "config: report.folder is '../a'; allowed: a folder below the project",
    ),
    "many limits": (
        "report: {limits: {step: 0.000001}}",
        "config: report.limits are 195,001 limits; allowed: 1 to 1,000, from the lowest to a highest",
    ),
    "the workflow's own name": (
        "datasets: {scenes-language-candidates: {format: vqav2}}",
        "config: datasets.scenes-language-candidates is the name of a dataset that the workflow writes",
    ),
    "an image name with hexadecimal numbers": (
        "datasets: {more: {format: vqav2, image_name: '{image_id:x}.jpg'}}",
        "config: datasets.more.image_name is '{image_id:x}.jpg'; allowed: a file name with {image_id} in it",
    ),
}


@pytest.mark.parametrize(("overlay", "message"), MESSAGES.values(), ids=MESSAGES)
def test_a_message_says_what_is_wrong(config: dict, overlay: str, message: str) -> None:
    for section, content in yaml.safe_load(overlay).items():
        if isinstance(content, dict):
            for key, value in content.items():
                if isinstance(value, dict) and isinstance(config[section].get(key), dict):
                    config[section][key] |= value
                else:
                    config[section][key] = value
        else:
            config[section] = content
    with pytest.raises(QuantrustError) as caught:
        check_config(config, SCHEMA)
    assert message in str(caught.value)
