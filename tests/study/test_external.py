"""Schemes that are folders which others quantized: how a config names them, and the jobs that follow."""

from pathlib import Path
from typing import Any

import pytest

from quantrust.errors import QuantrustError
from quantrust.study import inputs, jobs
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


def test_the_job_depends_on_config_and_weights_of_the_folder(tmp_path: Path) -> None:
    config = study(["bf16", {"external": {"path": str(tmp_path), "name": "others"}}])
    with pytest.raises(QuantrustError, match=r"holds no config\.json, but schemes\.others\.external of the config"):
        inputs.external_files(config, "qwen2-vl-tiny", "others")
    for name in ("config.json", "model-1.safetensors", "model.safetensors.index.json", "README.md"):
        (tmp_path / name).touch()
    files = inputs.external_files(config, "qwen2-vl-tiny", "others")
    assert [Path(file).name for file in files] == ["config.json", "model.safetensors.index.json", "model-1.safetensors"]


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
