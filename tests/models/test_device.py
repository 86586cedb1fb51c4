"""Where models compute and how they attend: what cannot be had is refused, the rest reaches every part."""

import pytest
import torch

from quantrust.errors import QuantrustError
from quantrust.models.device import check_device, device_name
from quantrust.models.skeleton import build_skeleton


@pytest.mark.parametrize("family_name", ["qwen2_vl", "idefics3"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_vision_tower_and_language_model_attend_as_asked(family_name, attention, model_folders):
    family, model = build_skeleton(model_folders[family_name], attention)
    for part in (family.tower, family.decoder):
        used = {m.config._attn_implementation for m in model.get_submodule(part).modules() if hasattr(m, "config")}
        assert used == {attention}


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(
        QuantrustError, match=r"compute\.device or --device is cuda, but torch .* sees no GPU; make it cpu"
    ):
        check_device("cuda", "sdpa", torch.bfloat16)


def test_flash_attention_is_refused_where_it_cannot_run(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("quantrust.models.device.find_spec", lambda name: None)
    for device, dtype, message in [
        ("cpu", torch.bfloat16, r"needs compute\.device: cuda, not cpu; set compute\.attention: sdpa"),
        ("cuda", torch.float32, r"needs bfloat16, not torch\.float32"),
        ("cuda", torch.bfloat16, r"needs the package flash-attn; install it, or set compute\.attention: sdpa"),
    ]:
        with pytest.raises(QuantrustError, match=message):
            check_device(device, "flash_attention_2", dtype)


@pytest.mark.parametrize(
    ("device", "attention", "message"),
    [
        ("tpu", "sdpa", "device 'tpu' is unknown; allowed: cpu, cuda"),
        ("cpu", "fast", "attention 'fast' is unknown; allowed: eager, sdpa, flash_attention_2"),
    ],
)
def test_an_unknown_name_is_told_what_there_is(device, attention, message):
    with pytest.raises(QuantrustError, match=message):
        check_device(device, attention, torch.float32)


def test_the_processor_is_called_cpu_in_records():
    assert device_name("cpu") == "cpu"
