"""Captions of random pictures, and calibration tables made from them."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

CAPTIONS = (
    "a red circle is below the 3 and a blue 7 stands top left",
    "there is a red 3, a circle below it, and no 8",
    "what is red is the circle; the 5 is top left of it",
    "yes, a 2 and a 4 and a red circle",
)


@pytest.fixture(scope="session")
def captions(tmp_path_factory, pictures) -> Path:
    """A folder with `captions.json` in the ShareGPT4V format and `images/`."""
    folder = tmp_path_factory.mktemp("captions")
    (folder / "images").mkdir()
    records = []
    for number, picture in enumerate(pictures):
        picture.save(folder / "images" / f"{number}.png")
        conversation = [
            {"from": "human", "value": "<image>\nwhat is there?"},
            {"from": "gpt", "value": CAPTIONS[number % len(CAPTIONS)]},
        ]
        records.append({"id": f"pair-{number}", "image": f"{number}.png", "conversations": conversation})
    (folder / "captions.json").write_text(json.dumps(records))
    return folder


@pytest.fixture(scope="session")
def padded_folders(model_folders, tmp_path_factory) -> dict[str, Path]:
    """The models with an embedding of padding that is not zero.

    The library begins it at zero, which stays zero through all blocks: whether padding counts would make no difference.
    """
    from safetensors.torch import load_file, save_file

    from quantrust.models.loading import load_family

    folders = {}
    for name, folder in model_folders.items():
        folders[name] = tmp_path_factory.mktemp("padded") / name
        shutil.copytree(folder, folders[name])
        padding = load_family(name).load_processor(str(folder)).tokenizer.pad_token_id
        tensors = load_file(folder / "model.safetensors")
        (rows,) = (tensor for key, tensor in tensors.items() if key.endswith("embed_tokens.weight"))
        assert not rows[padding].any() and rows[padding - 1].any()
        rows[padding] = rows[padding - 1]
        save_file(tensors, folders[name] / "model.safetensors", metadata={"format": "pt"})
    return folders


@pytest.fixture(scope="session")
def calibration_tables(model_folders, captions) -> dict[str, pl.DataFrame]:
    """A calibration table of five samples for each family."""
    from quantrust.quantization.calibration_samples import build_calibration_table

    return {
        family: build_calibration_table(folder, captions / "captions.json", captions / "images", samples=5, seed=1)
        for family, folder in model_folders.items()
    }


@pytest.fixture(params=["qwen2_vl", "idefics3"])
def calibrated(request, model_folders, calibration_tables):
    """Family, whole model, images and prompts of the calibration samples."""
    from quantrust.models.loading import load_model
    from quantrust.quantization.calibration_samples import language_batches, vision_batches

    family, model, processor = load_model(model_folders[request.param])
    model.requires_grad_(False)
    table = calibration_tables[request.param]
    images = list(vision_batches(family, processor, table))
    encoded = [image for inputs in images for image in family.encode_images(model, inputs)]
    return family, model, images, list(language_batches(family, model, processor, table, encoded))


@pytest.fixture
def tied(model_folders, tmp_path) -> Path:
    """A model whose head is its embedding."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "tied"
    shutil.copytree(model_folders["qwen2_vl"], folder)
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
