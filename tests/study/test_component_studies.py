"""The published component study asks as the publication did, over full grids of equal levels."""

from itertools import product

import pytest

from quantrust.quantization.factorial import designs_of, grid_schemes
from quantrust.quantization.scheme import UNQUANTIZED_BITS
from quantrust.study.config import check_config, completed
from quantrust.study.contents import downloads_of
from quantrust.study.inputs import task_of
from quantrust.study.settings import features
from study_workspace import OVERLAYS, shipped_config

STUDIES = [path.stem for path in OVERLAYS if path.stem.startswith("mmq")]
BLIP_2, LLAVA = "Question: {question} Short answer:", "{question}\nAnswer the question using a single word or phrase."
ASKED = {
    ("mmq", "blip2-opt-2.7b"): ("vqa", BLIP_2, 10),
    ("mmq", "llava-1.5-7b"): ("vqa", LLAVA, 10),
    ("mmq_captions", "blip2-opt-2.7b"): ("captioning", "{question}", 20),
    ("mmq_gqa", "llava-1.5-7b"): ("exact_match", LLAVA, 10),
}


@pytest.mark.parametrize(("study", "model"), ASKED, ids=str)
def test_each_part_of_the_published_component_study_asks_as_published(study: str, model: str) -> None:
    config = shipped_config(study)
    check_config(config)
    assert model in config["study"]["models"]
    dataset = config["study"]["id_dataset"]
    asked = features(config, model, dataset)
    assert (task_of(config, dataset), asked["prompt"], asked["max_new_tokens"]) == ASKED[study, model]
    # A captions file alone asks nothing.
    assert "instruction" not in config["datasets"][dataset]


def test_retrieval_is_of_the_published_images_and_judges_the_128_nearest() -> None:
    config = shipped_config("mmq_retrieval")
    check_config(config)
    dataset = config["study"]["id_dataset"]
    assert task_of(config, dataset) == "retrieval"
    assert config["datasets"][dataset]["splits"]["test"]["subset"] == "test"
    assert features(config, "blip2-itm-vit-g-coco", dataset)["rerank"] == 128


@pytest.mark.parametrize("name", STUDIES)
def test_parts_are_quantized_at_equal_levels_in_every_combination(name: str) -> None:
    designs = designs_of(shipped_config(name))
    assert [design.method for design in designs][:2] == ["gptq", "awq"]
    for design in designs:
        assert design.labels == ["vision", "connector", "language"][: 2 if name == "mmq_retrieval" else 3]
        assert not design.fraction and sorted(design.cells()) == [*product(*design.levels)]
        # the published grid of GPTQ alone gives one part other levels
        levels = design.levels[:2] if design.name == "published-gptq" else design.levels
        assert all(own == levels[0] and {2, 3, 4, UNQUANTIZED_BITS} <= set(own) for own in levels)


def test_the_published_levels_are_a_second_choice_beside_the_equal_ones() -> None:
    first, both = shipped_config("mmq"), shipped_config("mmq_published_levels")
    gptq, awq = (design for design in designs_of(both) if design.name.startswith("published"))
    assert (gptq.group, gptq.symmetric, awq.group, awq.symmetric) == ("channel", True, 128, False)
    assert [levels[0] for levels in gptq.levels] == [2, 2, 3]
    assert set(grid_schemes(first)) < set(grid_schemes(both))
    # Cells of AWQ that both have are one scheme: 63 of each method, 293 and 279 more, and the unquantized one.
    assert (len(grid_schemes(first)), len(grid_schemes(both))) == (2 * 63 + 1, 2 * 63 + 293 + 279 + 1)


@pytest.mark.parametrize("name", STUDIES)
def test_all_that_a_part_reads_can_be_downloaded_and_says_how_large_it_is(name: str) -> None:
    config = completed(shipped_config(name))
    found = downloads_of(config)
    assert all(found.values())
    folders = {config["downloads"][download]["folder"] for download in found}
    paths = [config["models"][model]["source"] for model in config["study"]["models"]]
    dataset = config["datasets"][config["study"]["id_dataset"]]
    dataset = dataset.get("splits", {"test": dataset})["test"]
    paths += [dataset[key] for key in ("questions", "annotations", "images") if key in dataset]
    paths += [config["calibration"]["source"]["captions"]]
    assert all(any(f"{path}/".startswith(f"{folder}/") for folder in folders) for path in paths)
