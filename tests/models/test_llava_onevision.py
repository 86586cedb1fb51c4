"""LLaVA-OneVision: tiles of one grid, pictures of any shape, and what is refused."""

import json

import pytest
import torch
from PIL import Image

from quantrust.errors import QuantrustError
from quantrust.models.skeleton import build_skeleton
from tiny import write_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles") / "model"
    write_tiny(folder, "llava_onevision")
    return folder


@pytest.mark.parametrize("size", [(1, 500), (2000, 3), (56, 56), (57, 56), (1, 1)])
def test_a_picture_of_any_shape_has_as_many_tokens_as_features(size, folder):
    family, model = build_skeleton(folder)
    processor = family.load_processor(str(folder))
    with torch.inference_mode():
        inputs = family.preprocess(processor, [Image.new("RGB", size)])
        (image,) = family.encode_images(model, inputs)
    assert image.placeholder == "<image>" * len(image.features)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("config.json", {"vision_feature_select_strategy": "default"}, "the tower has no class token"),
        ("config.json", {"vision_aspect_ratio": "pad"}, "vision_aspect_ratio is 'pad'; expected anyres_max_ and a num"),
        ("config.json", {"image_grid_pinpoints": [[56, 112]]}, "image processor and of config.json differ"),
        ("preprocessor_config.json", {"size": {"height": 112, "width": 112}}, "pictures of 112 x 112 pixels"),
        ("preprocessor_config.json", {"do_pad": False}, "pads no batches"),
    ],
)
def test_files_that_do_not_fit_are_refused(file, change, message, tmp_path):
    write_tiny(tmp_path / "model", "llava_onevision")
    path = tmp_path / "model" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(QuantrustError, match=message):
        family, _ = build_skeleton(tmp_path / "model")
        family.load_processor(str(tmp_path / "model"))
