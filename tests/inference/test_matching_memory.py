"""The memory of a match dump: what it grows with."""

from dataclasses import replace

import pytest
import torch

from quantrust.inference.matching import HELD
from quantrust.inference.matching_memory import match_footprint
from quantrust.inference.settings import MatchSettings
from quantrust.models.pictures import PictureCost
from quantrust.models.skeleton import build_skeleton
from quantrust.quantization.checkpoint import planned_bytes
from quantrust.quantization.layer_plan import build_layer_plan
from quantrust.quantization.scheme import parse_scheme
from retrieval_model import QUERIES, write_retrieval

# 16 patches of 96 channels in float32, and a token of the whole.
PICTURE = PictureCost(patches=16, tiles=1, tokens=QUERIES, prompt_tokens=8, pixel_bytes=3 * 56 * 56 * 4)
FEATURES = 17 * 96 * 4


@pytest.fixture(scope="module")
def planned(tmp_path_factory) -> tuple:
    folder = tmp_path_factory.mktemp("matching")
    write_retrieval(folder, ["a red 3"])
    with torch.device("meta"):
        family, model = build_skeleton(folder)
    plan = build_layer_plan(family, model, parse_scheme("rtn-w8g32-full"))
    return family, model, plan, planned_bytes(family, model, plan), PICTURE


def test_images_lie_in_memory_up_to_a_limit_and_then_in_files(planned):
    few, more = (match_footprint(*planned, images, MatchSettings(), 0) for images in (100, 200))
    embeddings = QUERIES * 64 * 4
    assert more.host - few.host == 100 * (FEATURES + embeddings)
    assert few.scratch == more.scratch == few.device == 0
    many = HELD // FEATURES + 1000
    most = match_footprint(*planned, many, MatchSettings(), 0)
    assert most.scratch == many * FEATURES - HELD
    assert most.host < few.host + HELD + many * embeddings


def test_a_gpu_has_weights_and_batches_and_not_the_images(planned):
    settings = MatchSettings(device="cuda")
    few, more = (match_footprint(*planned, images, settings, 0) for images in (100, 200))
    assert few.device == more.device > few.least > planned[3]["resident"]
    larger = match_footprint(*planned, 100, replace(settings, batch_size=1024), 0)
    assert larger.device > few.device and larger.least == few.least
