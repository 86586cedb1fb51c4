"""Segments that share a prefix are computed as if each stood in a prompt of its own."""

from dataclasses import replace

import pytest
import torch

from quantrust.embedded.models import SPECS, build_model, train_tokenizer
from quantrust.embedded.shared_prefix import ATTENTION, Layout
from quantrust.models.loading import load_family


@pytest.mark.parametrize("name", ["qwen2-vl-tiny", "idefics3-tiny", "llava-tiny", "blip2-tiny"])
def test_shared_prefix_equals_separate_prompts(name):
    spec = replace(SPECS[name], layers=2, vision_layers=2)
    family, model = load_family(spec.family), build_model(spec, train_tokenizer(["a red 3"], spec.family), 0)
    decoder = model.get_submodule(family.decoder)
    torch.manual_seed(0)
    layout = Layout(prefix=5, runs=((3, 4), (1, 7)))
    embeds = torch.randn(2, layout.length, 64)
    positions = torch.where(torch.arange(layout.length) < 5, torch.arange(layout.length), 5 + layout.offsets())
    positions = positions.expand(2, -1)
    rotary = positions.expand(3, -1, -1) if spec.family == "qwen2_vl" else positions
    with torch.no_grad():
        decoder.set_attn_implementation(ATTENTION)
        together = decoder(
            inputs_embeds=embeds, attention_mask=layout.as_mask(), position_ids=rotary, use_cache=False, layout=layout
        ).last_hidden_state
        decoder.set_attn_implementation("sdpa")
        for start, length in zip(layout.slot_starts(), [4, 4, 4, 7], strict=True):
            alone = torch.cat([embeds[:, :5], embeds[:, start : start + length]], dim=1)
            expected = decoder(inputs_embeds=alone, use_cache=False).last_hidden_state
            torch.testing.assert_close(together[:, start : start + length], expected[:, 5:], atol=2e-5, rtol=2e-5)
            torch.testing.assert_close(together[:, :5], expected[:, :5], atol=2e-5, rtol=2e-5)
