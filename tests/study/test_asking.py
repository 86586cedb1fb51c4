"""How a dataset's questions are asked: by the dataset, the model, the study or the task, in this order."""

from copy import deepcopy

import pytest

from quantrust.study.settings import features
from quantrust.tasks.task import load_task


def asked(config: dict, dataset: str = "scenes") -> tuple[str, int]:
    settings = features(config, "qwen2-vl-tiny", dataset)
    return settings["prompt"], settings["max_new_tokens"]


@pytest.mark.parametrize("dataset", ["scenes", "scenes-multimodal", "scenes-language", "scenes-language-candidates"])
def test_the_default_study_asks_as_its_task_does(config: dict, dataset: str) -> None:
    task = load_task("vqa")
    assert asked(config, dataset) == (task.prompt, task.max_new_tokens) == ("{question}", 8)


def test_a_dataset_comes_before_a_model_and_a_model_before_the_study(config: dict) -> None:
    config = deepcopy(config)
    files = {"format": "multiple_choice", "annotations": "a.json", "images": "i"}
    config["datasets"]["own"] = {**files, "split": {"dev": 0.4, "val": 0.1, "test": 0.5, "seed": 0}}
    config["features"] |= {"prompt": "{question} Answer:", "max_new_tokens": 16}
    assert asked(config, "own") == ("{question} Answer:", 16)
    config["models"]["qwen2-vl-tiny"]["prompt"] = "{question} Briefly:"
    assert asked(config, "own") == ("{question} Briefly:", 16)
    config["datasets"]["own"] |= {"prompt": "{question} The letter:", "max_new_tokens": 2}
    assert asked(config, "own") == ("{question} The letter:", 2)
    assert asked(config) == ("{question} Briefly:", 16)
