"""The stress condition: outlier channels, the same function."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from quantrust.embedded.stress import stress_model
from quantrust.errors import QuantrustError
from quantrust.models.loading import load_model


@pytest.fixture(scope="module", params=["qwen2_vl", "idefics3"])
def folders(request: pytest.FixtureRequest, model_folders: dict[str, Path], tmp_path_factory) -> tuple[Path, Path]:
    """A model whose weights are bfloat16 values, and the same one stressed."""
    from quantrust.embedded.models import save_model_folder

    family, model, processor = load_model(model_folders[request.param])
    base, stressed = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("stress") / "model"
    save_model_folder(model, processor.tokenizer, family.name, base, torch.bfloat16)
    stress_model(base, stressed, share=0.25, factor=8, seed=0)
    return base, stressed


def logits(folder: Path, picture: Image.Image) -> torch.Tensor:
    family, model, processor = load_model(folder)
    with torch.no_grad():
        images = family.encode_images(model, family.preprocess(processor, [picture]))
        inputs = family.language_inputs(model, processor, ["is there a 3?"], images, template="{question}")
        hidden, _ = family.read_prompts(model, inputs)
        return family.logits(model, hidden)


def test_the_function_is_the_same(folders: tuple[Path, Path], pictures: list[Image.Image]) -> None:
    base, stressed = (logits(folder, pictures[0]) for folder in folders)
    # Powers of two round nothing; what is left is the order of sums.
    torch.testing.assert_close(stressed, base, rtol=0, atol=1e-5)


def test_a_quarter_of_the_channels_is_eight_times_larger(folders: tuple[Path, Path]) -> None:
    (family, before, _), (_, after, _) = (load_model(folder) for folder in folders)
    group = family.scale_groups(before, family.blocks(before, "language")[0])[0]
    ratio = after.get_submodule(group.previous).weight / before.get_submodule(group.previous).weight
    assert sorted(set(ratio.tolist())) == [1.0, 8.0]
    assert (ratio == 8).float().mean() == 0.25
    columns = after.get_submodule(group.linears[0]).weight / before.get_submodule(group.linears[0]).weight
    assert torch.equal(columns[0], 1 / ratio)


def test_the_vision_tower_is_left_alone(folders: tuple[Path, Path]) -> None:
    (family, before, _), (_, after, _) = (load_model(folder) for folder in folders)
    for name in family.blocks(before, "vision"):
        for one, other in zip(
            before.get_submodule(name).parameters(), after.get_submodule(name).parameters(), strict=True
        ):
            assert torch.equal(one, other)


def test_the_same_seed_gives_the_same_bytes(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, stressed = folders
    stress_model(base, tmp_path / "again", share=0.25, factor=8, seed=0)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (stressed / "model.safetensors").read_bytes()


def test_the_config_says_what_the_weights_are(folders: tuple[Path, Path]) -> None:
    config = json.loads((folders[1] / "config.json").read_text())
    for place in (config, config["text_config"], config["vision_config"]):
        assert place.get("dtype", "bfloat16") == "bfloat16"
    assert config["dtype"] == "bfloat16"


def test_a_factor_that_rounds_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(QuantrustError, match="factor is 3; expected a power of two"):
        stress_model(folders[0], tmp_path / "x", share=0.25, factor=3, seed=0)
    assert not (tmp_path / "x").exists()
