"""Schemes that are folders which others quantized: how a config names them, and the jobs that follow."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quantrust.errors import QuantrustError
from quantrust.study import digests, inputs, jobs
from quantrust.study.config import study_config
from quantrust.study.contents import external_folder, scheme_of, variants_of

NAMED = {"external": {"path": "own/awq", "name": "others-awq"}}


def study(
    schemes: list[Any], models: tuple[str, ...] = ("qwen2-vl-tiny",), tables: dict[str, Any] | None = None
) -> dict[str, Any]:
    return study_config({"study": {"models": list(models), "schemes": schemes}, "schemes": tables or {}})


def test_the_list_of_schemes_may_name_a_folder() -> None:
    config = study(["bf16", NAMED, "hqq-w4g64"])
    assert [scheme for _, scheme in variants_of(config)] == ["bf16", "others-awq", "hqq-w4g64"]
    assert scheme_of(config, "others-awq").external == "own/awq"
    assert not scheme_of(config, "others-awq").needs_calibration
    # what was made of a config is a config
    assert study_config(config) == config


def test_its_checkpoint_has_a_rule_of_its_own_and_the_rest_is_as_of_any_scheme() -> None:
    found = {}
    for schemes in (["bf16", NAMED], ["bf16", "hqq-w4g64"]):
        name = "hqq-w4g64" if "hqq-w4g64" in schemes else "others-awq"
        found[name] = [job.rule for job in jobs.study_jobs(study(schemes)) if job.scheme == name]
    assert found["others-awq"].pop(0) == "import_checkpoint" and found["hqq-w4g64"].pop(0) == "quantize_model"
    assert found["others-awq"] == found["hqq-w4g64"]


def test_the_path_may_hold_the_name_of_the_model() -> None:
    tables = {"others": {"external": "own/{model}/awq"}}
    config = study(["others"], ("qwen2-vl-tiny", "idefics3-tiny"), tables)
    assert external_folder(config, "idefics3-tiny", "others") == "own/idefics3-tiny/awq"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a study sees of a quantized model before any job."""
    for name in ("model-1.safetensors", "model.safetensors.index.json", "README.md"):
        (tmp_path / name).touch()
    (tmp_path / "config.json").write_text('{"quantization_config": {"quant_method": "awq"}}')
    return tmp_path


def of_folder(function: Callable[..., list[str]], folder: Path) -> list[str]:
    config = study(["bf16", {"external": {"path": str(folder), "name": "others"}}])
    return function(config, "qwen2-vl-tiny", "others")


def test_the_job_depends_on_config_and_weights_of_the_folder(folder: Path) -> None:
    files = of_folder(inputs.external_files, folder)
    assert [Path(file).name for file in files] == ["config.json", "model.safetensors.index.json", "model-1.safetensors"]


def test_a_change_of_a_file_is_told_by_its_bytes(folder: Path) -> None:
    """A copy has other times, and what takes the place of a file may be older than it."""
    before = of_folder(digests.external_bytes, folder)
    weights = folder / "model-1.safetensors"
    os.utime(weights, ns=(0, 0))
    assert of_folder(digests.external_bytes, folder) == before
    weights.write_bytes(b"other")
    os.utime(weights, ns=(0, 0))
    after = of_folder(digests.external_bytes, folder)
    assert len(before) == 3 and [old != new for old, new in zip(before, after, strict=True)] == [False, False, True]


def test_the_job_depends_on_the_reader_of_its_format_alone(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "source_digest", lambda module: module)
    script, reader = of_folder(digests.external_code, folder)
    assert reader == "quantrust.quantization.readers.awq"
    (folder / "config.json").write_text(
        '{"text_config": {"compression_config": {"quant_method": "compressed-tensors"}}}'
    )
    assert of_folder(digests.external_code, folder) == [script, "quantrust.quantization.readers.compressed_tensors"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"holds no config\.json, but schemes\.others\.external of the config .* no GGUF"),
        ({}, "has no quantization_config, so that nobody quantized this folder"),
        ({"quantization_config": {"quant_method": "fp8"}}, r"quantization_config says fp8, which is not read; allowed"),
        ({"quantization_config": {"quant_method": ["gptq"]}}, r"says \['gptq'\], which is not read"),
        ({"quantization_config": [4]}, "quantization_config is no map"),
        ({"text_config": [{}], "quantization_config": None}, "has no quantization_config"),
        ([1], r"config\.json"),
    ],
)
def test_a_folder_that_nothing_reads_is_refused_before_any_job(content: object, message: str, folder: Path) -> None:
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(QuantrustError, match=message):
        of_folder(inputs.external_files, folder)


@pytest.mark.parametrize(
    ("schemes", "models", "tables", "message"),
    [
        (
            [NAMED],
            ("qwen2-vl-tiny", "idefics3-tiny"),
            {},
            r"schemes\.others-awq\.external is 'own/awq', one folder for all of study\.models; allowed: a path with "
            r"\{model\}",
        ),
        (["x"], ("qwen2-vl-tiny",), {"x": {"external": "own", "group": 64}}, r"schemes\.x\.group is given beside"),
        (["x"], ("qwen2-vl-tiny",), {"x": {"external": "own/{scheme}"}}, r"schemes\.x\.external is 'own/\{scheme\}'"),
        (
            [{"external": {"path": "own", "name": "bf16"}}],
            ("qwen2-vl-tiny",),
            {},
            r"schemes\.bf16 is a name with a meaning of its own",
        ),
        (
            [NAMED, {"external": {"path": "other", "name": "others-awq"}}],
            ("qwen2-vl-tiny",),
            {},
            r"study\.schemes\[1\]\.external\.name is 'others-awq', a name under schemes; allowed: another name",
        ),
        (
            [{"external": {"path": "own"}}],
            ("qwen2-vl-tiny",),
            {},
            r"study\.schemes\[0\] is .*; allowed: ",
        ),
    ],
)
def test_what_is_wrong_with_it_is_named(schemes: list, models: tuple, tables: dict, message: str) -> None:
    with pytest.raises(QuantrustError, match=message):
        study(schemes, models, tables)
