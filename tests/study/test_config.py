"""Checking a config: every fault is named by its key, its value and what is allowed."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.utils import update_config

from quantrust.confidence.available import available_estimators
from quantrust.confidence.catalogue import LEARNED, load_estimator, plain_estimators
from quantrust.errors import QuantrustError
from quantrust.evaluation.calibrators import METHODS
from quantrust.inference.features_file import features_schema, matches_schema
from quantrust.report.contents import figures_of, tables_of
from quantrust.study.config import check_config, completed
from quantrust.study.contents import declared_for_bundles, estimators_of
from quantrust.study.settings import dataset as dataset_settings
from quantrust.study.settings import features, prompt
from study_workspace import OVERLAYS, ROOT, overlay_files

SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"


def put(config: dict, path: str, value: Any) -> None:
    *sections, key = path.split("/")
    for section in sections:
        config = config[section]
    config[key] = value


def test_a_study_may_name_a_scheme_of_the_table(shipped_config: dict) -> None:
    # all models of the shipped studies have a vision tower
    shipped_config["schemes"]["mix"] = {**MIX, "table": [{"component": "vision", "bits": 4}]}
    shipped_config["study"]["schemes"] = ["bf16", "mix"]
    check_config(shipped_config, SCHEMA)
    shipped_config["study"]["schemes"] = ["bf16", "mux"]
    with pytest.raises(QuantrustError, match=r"study\.schemes\[1\] is 'mux': .*does not parse.*under schemes: .*mix$"):
        check_config(shipped_config, SCHEMA)


def test_the_shipped_configs_are_valid(shipped_config: dict) -> None:
    check_config(shipped_config, SCHEMA)


@pytest.mark.parametrize("overlay", [None, *OVERLAYS], ids=lambda path: str(path))
def test_a_study_has_the_resamples_to_find_a_difference_after_correction(shipped_config: dict, overlay: Path) -> None:
    """Holm's correction multiplies the smallest p-value, 2 / (resamples + 1), by the number of rows."""
    for name in overlay_files(overlay.stem) if overlay else []:
        update_config(shipped_config, yaml.safe_load((ROOT / name).read_text()))
    shipped_config = completed(shipped_config)
    study, estimators = shipped_config["study"], len(shipped_config["comparison"]["estimators"])
    schemes, datasets = len(study["schemes"]), 1 + len(study["shifts"])
    # AURC, ECE and the coverages depend on the estimator; accuracy does not: it is compared once a scheme.
    own = 2 + len(shipped_config["report"]["risks"])
    rows = len(study["models"]) * datasets * ((schemes - 1) * (own * estimators + 1) + schemes * (estimators - 1) * own)
    assert 2 / (shipped_config["comparison"]["resamples"] + 1) * rows < 0.05


MIX = {"method": "rtn", "group": 64, "symmetric": False, "table": [{"component": "language", "bits": 4}]}

FAULTS = [
    (
        "study/shifts",
        ["scenes-captions"],
        r"study\.shifts\[0\] is 'scenes-captions', of the task scene_captioning, but the ID dataset scenes is of the "
        r"task vqa; allowed: datasets whose items can be mixed: each a question",
    ),
    ("study/modles", ["a"], r"config: unknown key study\.modles; allowed: models, schemes, id_dataset"),
    ("sed", 1, r"config: unknown key sed; allowed: seed, on_bad_image, study"),
    ("seed", -1, r"seed is -1; allowed: a whole number from 0 on"),
    ("seed", "zero", r"seed is 'zero'; allowed: a whole number from 0 on"),
    ("seed", True, r"seed is True; allowed: a whole number"),
    ("study/models", [], r"study\.models is \[\]; allowed: a list of different names"),
    ("study/models", "qwen2-vl-tiny", r"study\.models is 'qwen2-vl-tiny'; allowed: a list of different names"),
    (
        "study/models",
        ["qwen2"],
        r"study\.models\[0\] is 'qwen2'; allowed: a name under models: qwen2-vl-tiny, idefics3",
    ),
    ("study/schemes", ["bf16", "mbq-w4"], r"study\.schemes\[1\] is 'mbq-w4': .*does not parse: expected bf16, or"),
    ("study/schemes", ["mbq-w7g64"], r"study\.schemes\[0\] is 'mbq-w7g64': .*bits 7 does not exist; allowed: 2, 3, 4"),
    ("schemes/my_mix", {}, r"schemes is .*; allowed: a name of lower-case letters, digits and hyphens"),
    ("schemes/mix", {"method": "rtn"}, r"schemes\.mix\.group is missing"),
    ("schemes/mix", MIX | {"table": []}, r"schemes\.mix\.table is \[\]; allowed: a list of rows"),
    ("schemes/mix", MIX | {"group": "row"}, r"schemes\.mix\.group is 'row'; allowed: a group size, or channel"),
    ("schemes/mix", MIX | {"grup": 64}, r"unknown key schemes\.mix\.grup; allowed: method, group, symm"),
    (
        "schemes/mix",
        MIX | {"table": [{"component": "head", "bits": 8}, {"component": "head", "bits": 4, "third": "last"}]},
        r"config: schemes\.mix\.table\[1\]\.third is 'last', but head has no blocks",
    ),
    (
        "schemes/mix",
        MIX | {"method": "int"},
        r"config: schemes\.mix\.method is 'int'; allowed: awq, gptq, hqq, mbq, rtn",
    ),
    ("schemes/rtn-w4g64", MIX, r"config: schemes\.rtn-w4g64 is a name with a meaning of its own"),
    (
        "factorial/grid",
        {
            **{"methods": ["rtn"], "group": 64, "symmetric": False, "levels": [4, 16]},
            "factors": [{"component": "connector", "third": "last"}, {"component": "vision"}],
        },
        r"factorial\.grid\.factors\[0\]\.third is 'last'; allowed: nothing, because the connector of qwen2-vl",
    ),
    ("study/schemes", ["bf16", "bf16"], r"study\.schemes is .*; allowed: a list of different names"),
    ("study/schemes", ["bf16/../x"], r"study\.schemes\[0\] is 'bf16/\.\./x'; allowed: a name of lower-case letters"),
    ("study/shifts", ["scenes"], r"study\.shifts\[0\] is 'scenes', which is the ID dataset; allowed: any other"),
    ("study/shifts", ["vqa"], r"study\.shifts\[0\] is 'vqa'; allowed: a name under datasets: scenes, "),
    ("study/id_dataset", "scenes-multimodal", r"study\.id_dataset is .*, which has no split dev; allowed"),
    ("study/id_dataset", "vqa", r"study\.id_dataset is 'vqa'; allowed: a name under datasets"),
    ("study/estimators", ["maxprop"], r"study\.estimators\[0\] is 'maxprop': no estimator .*; allowed: .*margin"),
    ("models/adversary", {"source": "x"}, r"models\.adversary is .*; allowed: either source and family, or stress"),
    (
        "models/adversary/family",
        "llama",
        r"models\.adversary\.family: there is no adapter for models of type 'llama'; supported: .*idefics3,",
    ),
    (
        "models/more",
        {"stress": {"model": "x", "share": 0.5, "factor": 8}},
        r"models\.more\.stress\.model is 'x'; allowed: a model with a source: qwen2-vl-tiny, idefics3-tiny, "
        "llava-tiny, blip2-tiny, blip2-itm-tiny, adversary",
    ),
    (
        "models/more",
        {"stress": {"model": "adversary", "share": 0.5, "factor": 3}},
        r"models\.more\.stress\.factor is 3; allowed: 2, 4, 8",
    ),
    (
        "models/adversary/processor",
        {"min_pixels": 3136, "size": {"longest_edge": 64}},
        r"models\.adversary\.processor: unknown setting min_pixels of the processor of idefics3; allowed: "
        r"do_image_splitting, size\.longest_edge$",
    ),
    (
        "models/qwen2-vl-tiny/processor",
        {"size": {"shortest_edge": 64}},
        r"unknown setting size\.shortest_edge of the processor of qwen2_vl; allowed: min_pixels, max_pixels$",
    ),
    (
        "models/qwen2-vl-tiny/processor",
        {"max_pixels": "1e6"},
        r"models\.qwen2-vl-tiny\.processor\.max_pixels is '1e6'; allowed: a whole number from 1 on",
    ),
    (
        "models/adversary/processor",
        {"do_image_splitting": "no"},
        r"models\.adversary\.processor\.do_image_splitting is 'no'; allowed: true or false",
    ),
    (
        "models/adversary/prompt",
        "Is it?",
        r"models\.adversary\.prompt is 'Is it\?'; allowed: a text with {question} in it, once",
    ),
    (
        "models/adversary/prompt",
        "{question} Again: {question}",
        r"models\.adversary\.prompt is '{question} Again: {question}'; allowed: a text with {question} in it, once",
    ),
    (
        "models/more",
        {"stress": {"model": "adversary", "share": 0.5, "factor": 8}, "prompt": "{question}"},
        r"models\.more\.prompt is given beside stress; allowed: with source only",
    ),
    (
        "models",
        {
            "base": {"source": "x", "family": "qwen2_vl", "chat_template": "y"},
            "more": {"stress": {"model": "base", "share": 0.5, "factor": 8}},
        },
        r"models\.more\.stress\.model is 'base', which has chat_template; allowed: a model without one",
    ),
    ("datasets/scenes/images/test", 0, r"datasets\.scenes\.images\.test is 0; allowed: a whole number from 1 on"),
    ("datasets/scenes/images", {"dev": 1}, r"datasets\.scenes\.images\.val is missing"),
    ("datasets/other", {}, r"datasets\.other\.format is missing"),
    ("datasets/Other", {"format": "vqav2"}, r"datasets is 'Other'; allowed: a name of lower-case letters"),
    (
        "datasets/other",
        {"format": "okvqa"},
        r"datasets\.other\.format is 'okvqa'; allowed: coco_captions, flickr30k, gqa, multiple_choice, ",
    ),
    (
        "datasets/other",
        {"format": "embedded"},
        r"datasets\.other\.format is 'embedded'; allowed: coco_captions, flickr30k, gqa, m",
    ),
    ("datasets/scenes/format", "vqav2", r"datasets\.scenes\.format is 'vqav2'; allowed: embedded"),
    ("on_bad_image", "ignore", r"on_bad_image is 'ignore'; allowed: stop, skip"),
    ("calibration/source", {"captions": "x"}, r"calibration\.source is .*; allowed: null, or captions and images"),
    ("models/adversary/downloads", ["x"], r"models\.adversary\.downloads\[0\] is 'x'; allowed: a name under downloads"),
    ("calibration/downloads", ["x"], r"calibration\.downloads\[0\] is 'x'; allowed: a name under downloads: "),
    ("downloads/x", {"folder": "f"}, r"downloads\.x is .*; allowed: either url or hub, and folder"),
    ("downloads/x", {"url": "ftp://h/f", "folder": "f"}, r"downloads\.x\.url is .*; allowed: an address that begins"),
    ("datasets/scenes-language/wrong_share", 60, r"wrong_share is 60; allowed: a number from 0 to 1"),
    ("datasets/scenes-language/adversary", "x", r"scenes-language\.adversary is 'x'; allowed: a name under models"),
    ("calibration/samples", 10_000, r"calibration\.samples is 10000; allowed: at most 512, which is datasets\.scenes"),
    ("features/dtype", "fp16", r"features\.dtype is 'fp16'; allowed: float32, bfloat16"),
    ("features/kernel", "packed", r"features\.dtype is 'float32'; allowed: bfloat16, as features\.kernel is packed"),
    ("features/kernel", "fast", r"features\.kernel is 'fast'; allowed: reference, packed"),
    (
        "compute",
        {"device": "cpu", "attention": "flash_attention_2"},
        r"compute\.attention is 'flash_attention_2'; allowed: eager, sdpa, as compute\.device is not cuda",
    ),
    (
        "compute",
        {"device": "cuda", "attention": "flash_attention_2"},
        r"features\.dtype is 'float32'; allowed: bfloat16, as compute\.attention is flash_attention_2",
    ),
    ("features/workers", -1, r"features\.workers is -1; allowed: a whole number from 0 on"),
    ("features/shards", 0, r"features\.shards is 0; allowed: a whole number from 1 on"),
    ("features/top_k", 1, r"features\.top_k is 1; allowed: a whole number from 2 on, or all"),
    ("features/prompt", "answer:", r"features\.prompt is 'answer:'; allowed: a text with {question} in it, once"),
    (
        "features/prompt",
        "<image>{question}",
        r"features\.prompt is '<image>\{question\}', which holds '<image>'; allowed: a text without a token of the "
        r"image$",
    ),
    (
        "models/qwen2-vl-tiny/prompt",
        "{question} <|image_pad|>",
        r"models\.qwen2-vl-tiny\.prompt is '\{question\} <\|image_pad\|>', which holds '<\|image_pad\|>'; allowed: a",
    ),
    ("selector/dropout", 1, r"selector\.dropout is 1; allowed: a number from 0 to below 1"),
    ("evaluation/id_shares", [1, 1.5, 0], r"evaluation\.id_shares\[1\] is 1\.5; allowed: a number from 0 to 1"),
    ("evaluation/id_shares", [1, 0.5], r"evaluation\.id_shares is \[1, 0\.5\]; allowed: shares that include 1 and 0"),
    ("evaluation/risks", [5], r"evaluation\.risks\[0\] is 5; allowed: a number from 0 to 1"),
    ("evaluation/costs", [-1], r"evaluation\.costs\[0\] is -1; allowed: a number above 0"),
    ("evaluation/groups", "topic", r"evaluation\.groups is 'topic'; allowed: a list of different columns, an empty"),
    (
        "evaluation/groups",
        ["topic", "image_id"],
        r"evaluation\.groups\[0\] is 'topic'; allowed: answer_type, question_kind, or a column of a file under",
    ),
    ("evaluation/groups", ["image_id"], r"evaluation\.groups\[0\] is 'image_id', which tells questions apart"),
    ("evaluation/resamples", 0, r"evaluation\.resamples is 0; allowed: a whole number from 1 on"),
    (
        "certification/estimators",
        ["maxprob", "guess"],
        r"certification\.estimators\[1\] is 'guess'; allowed: a name under study\.estimators: maxprob, ",
    ),
    (
        "comparison/estimators",
        ["maxprob", "guess"],
        r"comparison\.estimators\[1\] is 'guess'; allowed: a name under study\.estimators: maxprob, ",
    ),
    (
        "study/estimators",
        ["margin", "selector-ensemble"],
        r"study\.estimators is \['margin', 'selector-ensemble'\]; allowed: a list with maxprob or selector in it",
    ),
    ("comparison/resamples", 0, r"comparison\.resamples is 0; allowed: a whole number from 1 on"),
    ("comparison/resamples", 4, r"comparison\.resamples is 4; allowed: at least selector\.members, 5, each of which"),
    ("selector/learning_curve", [100, 100], r"selector\.learning_curve is .*; allowed: a list of different numbers"),
    (
        "selector/learning_curve",
        [2, 1],
        r"selector\.learning_curve is \[2, 1\]; allowed: .* from the least to the largest",
    ),
    (
        "selector/learning_curve",
        [9, 9999],
        r"selector\.learning_curve is .*; allowed: at most the dev .* of scenes, 4500",
    ),
    ("selector/members", 301, r"evaluation\.resamples is 300; allowed: at least selector\.members, 301, each of which"),
    ("certification/delta", 1, r"certification\.delta is 1; allowed: a number between 0 and 1"),
    ("bundles/delta", 0, r"bundles\.delta is 0; allowed: a number between 0 and 1"),
    (
        "bundles/schemes",
        ["bf16", "hqq-w6g64"],
        r"bundles\.schemes\[1\] is 'hqq-w6g64'; allowed: a name under study\.schemes: bf16, ",
    ),
    (
        "bundles/estimators",
        ["guess"],
        r"bundles\.estimators\[0\] is 'guess'; allowed: a name under certification\.estimators: maxprob, ",
    ),
    ("bundles/risks", [0.052], r"bundles\.risks\[0\] is 0\.052; allowed: one of report\.limits: 0\.005, 0\.01"),
    ("bundles/estimator", "guess", r"bundles\.estimator is 'guess'; allowed: one of bundles\.estimators: maxprob, "),
    ("bundles/risk", 0.5, r"bundles\.risk is 0\.5; allowed: one of bundles\.risks: "),
    ("models/qwen2-vl-tiny/license", "a b", r"models\.qwen2-vl-tiny\.license is 'a b'; allowed: a text without spaces"),
    ("bundles/risks", [], r"bundles\.risks is \[\]; allowed: null, or a list of different risk limits"),
    (
        "report/risks",
        [0.05, 0.03],
        r"report\.risks\[1\] is 0\.03; allowed: one of evaluation\.risks: 0\.005, 0\.01",
    ),
    ("report/risks", [], r"report\.risks is \[\]; allowed: a list of different risks"),
    ("report/limits/lowest", 0, r"report\.limits\.lowest is 0; allowed: a number between 0 and 1"),
    ("report/shipping/risk", 0.052, r"report\.shipping\.risk is 0\.052; allowed: one of report\.limits: 0\.005, 0\.01"),
    (
        "report/shipping/risks",
        [0.05, 0.052],
        r"report\.shipping\.risks\[1\] is 0\.052; allowed: one of report\.limits: ",
    ),
    ("report/shipping/risks", [0.1], r"report\.shipping\.risk is 0\.05; allowed: one of report\.shipping\.risks: 0\.1"),
    (
        "report/shipping/risks",
        [],
        r"report\.shipping\.risks is \[\]; allowed: null, or a list of different risk limits",
    ),
    (
        "report/shipping/estimators",
        ["maxprob", "entropy"],
        r"report\.shipping\.estimators\[1\] is 'entropy'; allowed: a name under certification\.estimators: maxprob, ",
    ),
    ("report/shipping/keeps", 95, r"report\.shipping\.keeps is 95; allowed: a number between 0 and 1"),
]


@pytest.mark.parametrize(("path", "value", "message"), FAULTS, ids=[f"{path}={value}" for path, value, _ in FAULTS])
def test_a_fault_is_named(config: dict, path: str, value: Any, message: str) -> None:
    put(config, path, value)
    with pytest.raises(QuantrustError, match=message):
        check_config(config, SCHEMA)


OFFICIAL = {"format": "vqav2", "questions": "q.json", "annotations": "a.json", "images": "i"}
SHARES = {"dev": 0.4, "val": 0.1, "test": 0.5, "seed": 0}
FILES = {key: OFFICIAL[key] for key in ("questions", "annotations", "images")}
ACCEPTED = {
    "shares": {**OFFICIAL, "split": SHARES},
    "a split file": {**OFFICIAL, "split_file": "s.csv"},
    "gqa": {"format": "gqa", "annotations": "a.json", "images": "i", "split": SHARES},
    "multiple choice": {"format": "multiple_choice", "annotations": "a.json", "images": "i", "split": SHARES},
    "files for each": {"format": "vqav2", "splits": {"dev": FILES, "val": FILES, "test": FILES}},
}
REFUSED = [
    (OFFICIAL, r"datasets\.more needs splits .* or split_file, one of the three; given: none of them"),
    ({**OFFICIAL, "split": SHARES, "split_file": "s"}, r"given: datasets\.more\.split and datasets\.more\.split_file"),
    ({**OFFICIAL, "split": {**SHARES, "dev": 0.5}}, r"datasets\.more\.split has shares that sum to 1\.1; allowed"),
    ({**OFFICIAL, "split": {"dev": 1}}, r"datasets\.more\.split\.val is missing"),
    ({"format": "vqav2", "annotations": "a", "images": "i", "split": SHARES}, r"datasets\.more\.questions is missing"),
    (
        {**OFFICIAL, "format": "vizwiz", "split": SHARES},
        r"datasets\.more\.questions is given; allowed: nothing, vizwiz has",
    ),
    (
        {**OFFICIAL, "format": "gqa", "split": SHARES},
        r"datasets\.more\.questions is given; allowed: nothing, gqa has",
    ),
    ({"format": "gqa", "images": "i", "split": SHARES}, r"datasets\.more\.annotations is missing"),
    (
        {"format": "multiple_choice", "annotations": "a", "images": "i", "split": SHARES, "image_name": "{image_id}"},
        r"datasets\.more\.image_name is given; allowed: nothing, multiple_choice names the image of every question",
    ),
    (
        {**OFFICIAL, "split": SHARES, "instruction": "What is this?"},
        r"datasets\.more\.instruction is given; allowed: nothing, vqav2 has a question about every image",
    ),
    ({"format": "vqav2", "splits": {"test": {}}}, r"datasets\.more\.splits\.test\.questions is missing"),
    ({**OFFICIAL, "splits": {"test": FILES}}, r"datasets\.more\.questions is given beside datasets\.more\.splits"),
    (
        {**OFFICIAL, "split": SHARES, "downloads": ["x"]},
        r"datasets\.more\.downloads\[0\] is 'x'; allowed: a name under",
    ),
    (
        {**OFFICIAL, "split": SHARES, "image_name": "{id}"},
        r"image_name is '{id}'; allowed: a file name with {image_id} in it, such as {image_id:012d}.jpg, and no other",
    ),
    (
        {**OFFICIAL, "split": SHARES, "image_name": "{image_id}_{x}.jpg"},
        r"image_name is '{image_id}_{x}.jpg'; allowed: a file name with {image_id} in it, such as",
    ),
    # a number of so many digits takes all memory
    (
        {**OFFICIAL, "split": SHARES, "image_name": "{image_id:99999999999999d}.jpg"},
        r"image_name is '{image_id:99999999999999d}.jpg'; allowed: a file name with {image_id} in it, such as",
    ),
]


@pytest.mark.parametrize("key", ["questions", "annotations", "images", "split_file"])
def test_a_path_with_braces_is_refused(config: dict, key: str) -> None:
    """Snakemake would end in a WildcardError, or look for a file of another name."""
    config["datasets"]["more"] = {**OFFICIAL, "split_file": "s.json"} | {key: "data/{v1}/file"}
    allowed = "a path without braces, which Snakemake takes for wildcards"
    with pytest.raises(QuantrustError, match=rf"datasets\.more\.{key} is 'data/\{{v1\}}/file'; allowed: {allowed}"):
        check_config(config, SCHEMA)


def test_every_path_of_the_config_goes_without_braces(config: dict) -> None:
    config["models"]["own"] = {"family": "idefics3", "source": "{a}", "chat_template": "}"}
    config["calibration"]["source"] = {"captions": "{b}", "images": "{c}", "only": "{d}"}
    config["downloads"]["more"] = {"url": "https://example.org/a.zip", "folder": "{e}"}
    config["report"]["folder"] = "{f}"
    with pytest.raises(QuantrustError) as caught:
        check_config(config, SCHEMA)
    refused = [line.split(" is ")[0].removeprefix("config: ") for line in str(caught.value).splitlines()]
    assert refused == [
        "calibration.source",
        "downloads.more.folder",
        "models.own.chat_template",
        "models.own.source",
        "report.folder",
    ]


@pytest.mark.parametrize("dataset", ACCEPTED.values(), ids=ACCEPTED)
def test_a_dataset_in_official_files_needs_config_lines_alone(config: dict, dataset: dict) -> None:
    config["datasets"]["more"] = dataset
    config["study"]["shifts"] = ["more"]
    check_config(config, SCHEMA)
    config["study"] |= {"id_dataset": "more", "shifts": ["scenes"]}
    config["calibration"]["source"] = {"captions": "c.json", "images": "i", "only": "coco/"}
    check_config(config, SCHEMA)


@pytest.mark.parametrize(("dataset", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_faulty_dataset_is_named(config: dict, dataset: dict, message: str) -> None:
    config["datasets"]["more"] = dataset
    with pytest.raises(QuantrustError, match=message):
        check_config(config, SCHEMA)


def test_a_dataset_without_the_splits_of_its_part_in_the_study_is_named(config: dict) -> None:
    config["datasets"]["more"] = {"format": "vqav2", "splits": {"dev": FILES}}
    config["study"]["shifts"] = ["more"]
    with pytest.raises(QuantrustError, match=r"study\.shifts\[0\] is 'more', which has no split test"):
        check_config(config, SCHEMA)


def test_calibration_needs_captions_unless_no_scheme_reads_any(config: dict) -> None:
    config["datasets"]["more"] = {**OFFICIAL, "split": SHARES}
    config["study"]["id_dataset"] = "more"
    with pytest.raises(QuantrustError, match=r"calibration\.source is null, .* the ID dataset more has none; set .*"):
        check_config(config, SCHEMA)
    config["study"]["schemes"] = ["bf16", "hqq-w4g64"]
    check_config(config, SCHEMA)


def test_a_missing_key_is_named(config: dict) -> None:
    del config["selector"]["hidden"]
    with pytest.raises(QuantrustError, match=r"config: selector\.hidden is missing"):
        check_config(config, SCHEMA)


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside the new one"])
def test_an_old_key_is_refused_with_its_new_name(config: dict, beside: bool) -> None:
    """An overlay with the old key has the new one beside it, from the default config."""
    study = config["study"]
    study["in_distribution"] = study["id_dataset"] if beside else study.pop("id_dataset")
    with pytest.raises(QuantrustError) as caught:
        check_config(config, SCHEMA)
    assert str(caught.value) == "config: study.in_distribution was renamed to study.id_dataset"


CHOSEN = {
    "those of the default": (["maxprob", "maxprob+platt", "entropy", "selector"], ["maxprob", "selector"]),
    "maxprob alone": (["maxprob"], ["maxprob"]),
    "the Selector alone": (["selector", "selector-ensemble"], ["selector"]),
    "none of the two": (["entropy", "margin+platt"], ["entropy", "margin+platt"]),
    "one's own": (["margin", "own", "own+platt", "maxprob"], ["own", "own+platt", "maxprob"]),
}


@pytest.mark.parametrize(("estimators", "chosen"), CHOSEN.values(), ids=CHOSEN)
def test_estimators_of_the_report_are_by_default_the_main_ones_that_the_study_has(
    config: dict, estimators: list[str], chosen: list[str]
) -> None:
    config["study"]["estimators"] = estimators
    assert estimators_of(config) == dict.fromkeys(("certification", "comparison", "shipping"), chosen)
    filled = completed(config)
    for section in (filled["certification"], filled["comparison"], filled["report"]["shipping"]):
        assert section["estimators"] == chosen
    assert config["certification"]["estimators"] is None


def test_limits_with_verdicts_are_by_default_the_certified_ones_of_the_grid_and_the_criterions(config: dict) -> None:
    assert completed(config)["report"]["shipping"]["risks"] == [0.01, 0.05, 0.1, 0.2]
    config["certification"]["risks"] = [0.2, 0.052, 0.1]
    assert completed(config)["report"]["shipping"]["risks"] == [0.05, 0.1, 0.2]
    config["report"]["shipping"]["risks"] = [0.2, 0.05]
    assert completed(config)["report"]["shipping"]["risks"] == [0.05, 0.2]


def test_what_the_config_names_is_left_as_it_is(config: dict) -> None:
    config["certification"]["estimators"] = ["margin", "maxprob"]
    config["comparison"]["estimators"] = ["entropy"]
    assert estimators_of(config) == {
        "certification": ["margin", "maxprob"],
        "comparison": ["entropy"],
        "shipping": ["maxprob"],
    }
    check_config(config, SCHEMA)


def test_everything_that_the_report_judges_may_ship_unless_the_config_names_less(config: dict) -> None:
    config["certification"]["risks"] = [0.05, 0.2, 0.001]
    config["report"]["shipping"] |= {"estimators": ["selector"], "risk": 0.1}
    schemes = config["study"]["schemes"]
    # 0.1 % is no limit of the decision table.
    expected = {"schemes": schemes, "estimators": ["selector"], "risks": [0.2, 0.1, 0.05]}
    assert declared_for_bundles(config) == expected
    assert completed(config)["bundles"] == {**expected, "delta": 0.1, "estimator": "selector", "risk": 0.1}
    named = {"schemes": schemes[2:3], "estimators": ["maxprob"], "risks": [0.05, 0.1]}
    config["bundles"] |= named
    assert declared_for_bundles(config) == named
    check_config(config, SCHEMA)


@pytest.mark.parametrize("estimators", [["maxprob"], ["selector"], ["maxprob", "margin"]])
def test_a_study_of_fewer_estimators_or_without_shifts_needs_no_further_key(
    config: dict, estimators: list[str]
) -> None:
    config["study"] |= {"shifts": [], "estimators": estimators}
    check_config(config, SCHEMA)


def test_an_attention_that_the_family_of_a_model_cannot_be_read_with_is_refused(config: dict) -> None:
    name = config["study"]["models"][0]
    config["models"][name]["family"] = "paligemma"
    config["compute"] |= {"device": "cuda", "attention": "flash_attention_2"}
    config["features"]["dtype"] = "bfloat16"
    with pytest.raises(QuantrustError) as caught:
        check_config(config)
    assert "compute.attention is 'flash_attention_2'; allowed: eager, sdpa, as" in str(caught.value)
    assert str(caught.value).count("compute.attention") == 1 and f"the family of {name}" in str(caught.value)


def test_every_fault_is_listed_on_a_line_of_its_own(config: dict) -> None:
    put(config, "seed", -1)
    put(config, "features/dtype", "fp16")
    with pytest.raises(QuantrustError) as caught:
        check_config(config, SCHEMA)
    assert [line.split(" is ")[0] for line in str(caught.value).splitlines()] == [
        "config: features.dtype",
        "config: seed",
    ]


def test_every_key_of_the_default_is_explained() -> None:
    """A key is explained by a comment above it, or is one of a map's or list's entries that are explained together."""
    lines = (ROOT / "config.yaml").read_text().splitlines()
    explained: dict[str, bool] = {}
    for number, line in enumerate(lines):
        key = line.strip().split(":")[0]
        if line.strip() and not line.strip().startswith(("#", "-")):
            above = lines[number - 1].strip()
            explained[key] = explained.get(key, False) or above.startswith("#")
    config = yaml.safe_load("\n".join(lines))
    together = {
        *config["models"],
        *config["datasets"],
        *(name for m in config["models"].values() for name in m["training"]),
    }
    assert {key for key, has in explained.items() if not has} <= together


def test_settings_and_schema_have_the_same_names(config: dict) -> None:
    from quantrust.confidence.selector_training import SelectorSettings
    from quantrust.embedded.training.settings import TrainingSettings
    from quantrust.inference.settings import DumpSettings, MatchSettings

    schema = yaml.safe_load(SCHEMA.read_text())["properties"]
    training = schema["models"]["additionalProperties"]["properties"]["training"]
    for section, settings in (
        (schema["selector"], SelectorSettings),
        (training, TrainingSettings),
    ):
        # on how many questions more Selectors are trained is no setting of one
        named = set(section["properties"]) - {"learning_curve"}
        assert named == {field.name for field in dataclasses.fields(settings)}
    answering = {*schema["features"]["properties"], *schema["compute"]["properties"]} - {"workers", "shards"}
    fields = {field.name for settings in (DumpSettings, MatchSettings) for field in dataclasses.fields(settings)}
    assert answering == fields


def test_every_estimator_and_calibration_of_the_package_is_allowed_and_no_other(config: dict) -> None:
    plain = available_estimators(matches=False)
    assert {*plain} == {*plain_estimators(), *LEARNED} - {"match-margin"}
    probabilities = [name for name in plain if name != "entropy"]
    config["study"]["estimators"] = plain + [f"{name}+{method}" for name in probabilities for method in METHODS]
    check_config(config, SCHEMA)
    for name in ("entropy+isotonic", "maxprob+", "maxprob+beta", "maxprob+platt+platt"):
        config["study"]["estimators"] = [name]
        with pytest.raises(QuantrustError, match=r"study\.estimators\[0\] is .*; allowed: (entropy\n|the name of an)"):
            check_config(config, SCHEMA)


def test_estimators_are_available_where_their_columns_are() -> None:
    for matches, columns in ((True, matches_schema().names), (False, features_schema(1).names)):
        plain = {*available_estimators(matches)} - {*LEARNED}
        read = {name: load_estimator(name).confidence().meta.root_names() for name in plain_estimators()}
        assert plain == {name for name, names in read.items() if {*names} <= {*columns}}


def test_captions_of_the_scenes_are_asked_for_without_the_prompt_of_a_model(config: dict) -> None:
    config["models"]["qwen2-vl-tiny"]["prompt"] = "Question: {question} Short answer:"
    assert prompt(config, "qwen2-vl-tiny", "scenes") == "Question: {question} Short answer:"
    assert prompt(config, "qwen2-vl-tiny", "scenes-captions") == "{question}"
    assert "prompt" not in dataset_settings(config, "scenes-captions")


MATCHING = {"source": "own", "family": "blip_2_retrieval"}
PAIRS = {
    "format": "flickr30k",
    "splits": {
        split: {"annotations": "own/a.json", "images": "own", "subset": split} for split in ("dev", "val", "test")
    },
}


def test_models_that_match_are_asked_to_retrieve_and_no_others(config: dict) -> None:
    config["models"]["matching"], config["datasets"]["pairs"] = MATCHING, PAIRS
    config["study"]["models"] = ["qwen2-vl-tiny", "matching"]
    refused = (
        r"config: study\.models\[1\] is 'matching', a blip_2_retrieval model, which matches images with texts, but "
        r"scenes is of the task vqa; allowed: models and datasets that go together$"
    )
    with pytest.raises(QuantrustError, match=refused):
        check_config(config, SCHEMA)
    config["study"] |= {"models": ["qwen2-vl-tiny"], "shifts": ["pairs"]}
    refused = r"config: study\.models\[0\] is 'qwen2-vl-tiny', a qwen2_vl model, which writes answers, but pairs is of"
    with pytest.raises(QuantrustError, match=refused):
        check_config(config, SCHEMA)


def test_only_a_format_whose_files_hold_several_splits_has_subsets(config: dict) -> None:
    config["datasets"]["pairs"] = PAIRS
    check_config(config, SCHEMA)
    config["datasets"]["pairs"] = PAIRS | {"format": "coco_captions"}
    with pytest.raises(QuantrustError, match=r"datasets\.pairs\.splits\.val\.subset is given; allowed: nothing, the f"):
        check_config(config, SCHEMA)


LANGUAGE = {"component": "language", "bits": 4}


@pytest.mark.parametrize(
    ("section", "content", "message"),
    [
        (
            "factorial",
            {
                "parts": {
                    **{"methods": ["rtn"], "group": 64, "symmetric": False, "levels": [4, 16]},
                    "factors": [{"component": "vision"}, {"component": "language"}],
                }
            },
            r"factorial\.parts\.factors\[1\]\.component is 'language'; allowed: vision, connector, embedding, because "
            r"matching, a blip_2_retrieval model, has no language model",
        ),
        (
            "schemes",
            {"mix": MIX | {"table": [{"component": "vision", "bits": 4}, LANGUAGE]}},
            r"schemes\.mix\.table\[1\]\.component is 'language'; allowed: vision, connector, embedding",
        ),
        (
            "study",
            {"schemes": ["bf16", "rtn-w4g64"]},
            r"study\.schemes\[1\] is 'rtn-w4g64', which quantizes the language model alone; allowed: bf16, or what "
            r"ends in -mixed or -full, because matching, a blip_2_retrieval model, has no language model",
        ),
    ],
)
def test_what_would_change_no_weight_of_a_model_without_a_language_model_is_refused(
    config: dict, section: str, content: dict, message: str
) -> None:
    config["models"]["matching"], config["datasets"]["pairs"] = MATCHING, PAIRS
    config["study"] |= {"models": ["matching"], "schemes": ["bf16", "rtn-w4g64-full"], "shifts": []}
    config["study"] |= {"id_dataset": "pairs", "estimators": ["match-margin"]}
    check_config(config, SCHEMA)
    config[section] |= content
    if section == "schemes":
        config["study"]["schemes"] = ["bf16", "mix"]
    with pytest.raises(QuantrustError, match=message):
        check_config(config, SCHEMA)


@pytest.fixture
def retrieval(config: dict) -> dict:
    """A study of retrieval that can be run."""
    config["models"]["matching"], config["datasets"]["pairs"] = dict(MATCHING), dict(PAIRS)
    config["study"] |= {"models": ["matching"], "schemes": ["bf16", "hqq-w4g64-full"], "shifts": ["pairs"]}
    config["study"] |= {"id_dataset": "scenes-retrieval", "estimators": ["match-margin"]}
    return config


def with_groups(config: dict, id_dataset: str, groups: list[str] | None) -> dict:
    study = config["study"] | {"id_dataset": id_dataset, "shifts": []}
    return config | {"study": study, "evaluation": config["evaluation"] | {"groups": groups}}


@pytest.mark.parametrize(
    ("id_dataset", "groupings", "figures"),
    [
        ("scenes", ["answer_type", "question_kind"], {"answer_types", "question_kinds", "fairness_by_group"}),
        ("scenes-captions", [], set()),
        ("scenes-retrieval", ["question_kind"], {"question_kinds", "fairness_by_group"}),
    ],
)
def test_items_are_grouped_by_what_they_have_and_no_figure_is_drawn_of_what_they_lack(
    retrieval: dict, config: dict, id_dataset: str, groupings: list[str], figures: set[str]
) -> None:
    whole = completed(with_groups(config, id_dataset, None))
    assert whole["evaluation"]["groups"] == groupings
    by_group = {"answer_types", "question_kinds", "fairness_by_group"}
    assert {figure.name for figure in figures_of(whole)} & by_group == figures
    assert ("fairness" in {table.name for table in tables_of(whole)}) == bool(groupings)


def test_a_grouping_that_the_items_lack_is_refused(retrieval: dict) -> None:
    message = (
        r"evaluation\.groups\[0\] is 'answer_type', which nothing in scenes-retrieval has; allowed: question_kind, or "
        r"a column of a file under datasets\.<name>\.groups$"
    )
    with pytest.raises(QuantrustError, match=message):
        check_config(with_groups(retrieval, "scenes-retrieval", ["answer_type"]), SCHEMA)


def test_a_study_of_retrieval_needs_no_dev(retrieval: dict) -> None:
    check_config(retrieval, SCHEMA)
    estimators = estimators_of(completed(retrieval))
    assert estimators == {key: ["match-margin"] for key in ("certification", "comparison", "shipping")}
    retrieval["study"]["id_dataset"] = "scenes-multimodal"
    with pytest.raises(QuantrustError, match=r"scenes-multimodal', which has no split dev; allowed: .* dev, val, test"):
        check_config(retrieval, SCHEMA)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "study/estimators",
            ["maxprob", "match-margin", "selector"],
            r"study\.estimators has maxprob, selector, which read written answers, but the answers to scenes-retrieval "
            r"are found and not written; allowed: match-margin$",
        ),
        ("study/estimators", ["match-margin+isotonic"], "match-margin is not a probability and cannot be calibrated"),
        ("features/shards", 2, r"features\.shards is 2; allowed: 1, as every query of scenes-retrieval looks through"),
        ("features/rerank", 9, r"features\.rerank is 9; allowed: a whole number from 10 on"),
        (
            "models/matching/prompt",
            "{question}",
            r"models\.matching\.prompt is given; allowed: nothing, a blip_2_retri",
        ),
        ("datasets/pairs/prompt", "{question}", r"datasets\.pairs\.prompt is given; allowed: nothing, no answer to fl"),
        ("datasets/pairs/instruction", "Look.", r"datasets\.pairs\.instruction is given; allowed: nothing, no answer"),
        ("datasets/pairs/subset", "test", r"datasets\.pairs\.subset is given beside datasets\.pairs\.splits"),
    ],
)
def test_what_retrieval_lacks_is_refused(retrieval: dict, path: str, value: Any, message: str) -> None:
    put(retrieval, path, value)
    with pytest.raises(QuantrustError, match=message) as caught:
        check_config(retrieval, SCHEMA)
    assert len(str(caught.value).splitlines()) == 1


def test_answers_that_are_written_have_no_margin_of_matches(config: dict) -> None:
    config["study"]["estimators"] = ["maxprob", "match-margin"]
    with pytest.raises(
        QuantrustError, match="'match-margin', which reads the scores of matches; allowed: where answers"
    ):
        check_config(config, SCHEMA)


def test_only_what_is_read_is_given_to_a_dump(retrieval: dict) -> None:
    found, asked = features(retrieval, "matching", "scenes-retrieval"), features(retrieval, "matching", "scenes")
    assert found["rerank"] == 128 and not {"prompt", "max_new_tokens", "top_k"} & found.keys()
    assert "rerank" not in asked and asked["prompt"] == "{question}"
