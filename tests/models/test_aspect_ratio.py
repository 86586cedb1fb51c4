"""Which pictures a family's processor takes: what the adapter says of it is exact, under all settings of a config."""

import shutil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from quantrust.errors import QuantrustError
from quantrust.models.loading import family_of, load_family
from quantrust.models.pictures import preprocess_pictures
from quantrust.models.processing import override_processor
from quantrust.models.processor_settings import max_aspect_ratio
from quantrust.named_modules import FAMILIES, module_names

SETTINGS = {
    "qwen2_vl": [{"min_pixels": 1, "max_pixels": 1}, {"min_pixels": 1, "max_pixels": 64**2}, {"min_pixels": 64**2}],
    "idefics3": [
        {"do_image_splitting": False, "size": {"longest_edge": 1}},
        {"do_image_splitting": True, "size": {"longest_edge": 3}},
        {"do_image_splitting": True, "size": {"longest_edge": 300}},
    ],
}


@pytest.fixture(scope="module")
def processors(model_folders, tmp_path_factory):
    """The adapters and processors of both families, as their folders have them and under settings of a config."""
    found = {}
    for name, choices in SETTINGS.items():
        found[name] = []
        for settings in [{}, *choices]:
            folder = tmp_path_factory.mktemp("processor") / "model"
            shutil.copytree(model_folders[name], folder)
            override_processor(folder, settings)
            found[name].append((family_of(folder), family_of(folder).load_processor(str(folder))))
    return found


@pytest.mark.parametrize("name", SETTINGS)
@given(short=st.integers(1, 6), long=st.integers(1, 1300), turned=st.booleans())
@example(short=1, long=200, turned=False)
@example(short=1, long=201, turned=True)
@example(short=3, long=601, turned=False)
@example(short=3, long=600, turned=True)
def test_a_picture_is_refused_where_the_adapter_says_so_and_nowhere_else(name, processors, short, long, turned):
    size = (short, long) if turned else (long, short)
    for family, processor in processors[name]:
        limit = family.max_aspect_ratio
        taken = limit is None or max(size) / min(size) <= limit
        try:
            preprocess_pictures(family, processor, [Image.new("RGB", size)], ["x.png"])
        except QuantrustError as error:
            assert not taken
            assert str(error).startswith(f"x.png, {size[0]} x {size[1]}, is refused by the model's processor (")
        else:
            assert taken


@pytest.mark.parametrize("name", module_names(FAMILIES))
def test_the_limit_is_read_from_the_source_as_the_adapter_has_it(name):
    assert max_aspect_ratio([name]) == load_family(name).max_aspect_ratio


def test_models_that_are_studied_together_have_the_least_limit():
    assert max_aspect_ratio(["idefics3", "qwen2_vl", "idefics3"]) == 200
    assert max_aspect_ratio(["idefics3"]) is None
    assert max_aspect_ratio([]) is None
