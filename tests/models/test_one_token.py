"""Attention of one new token: a key that heads share is read once, and nothing else changes."""

import copy

import pytest
import torch
from torch.nn import functional
from transformers import DynamicCache

from quantrust.models import family as adapters
from quantrust.models.loading import load_model

TOKENS = 20


@pytest.fixture(scope="module", params=["qwen2_vl", "idefics3"])
def loaded(request, model_folders):
    return load_model(model_folders[request.param])


@torch.inference_mode()
def last_state(loaded, mask: torch.Tensor, seen: list | None = None, monkeypatch=None) -> torch.Tensor:
    """Return the states of a token after others; write down the query heads that torch is given for it."""
    family, model, _ = loaded
    config = model.get_submodule(family.decoder).config
    embeds = model.get_submodule(family.embedding)(torch.arange(2 * TOKENS).view(2, TOKENS) % 50)
    positions = torch.arange(TOKENS).expand(2, -1)
    if family.name == "qwen2_vl":
        positions = positions.expand(3, -1, -1)
    cache = DynamicCache(config=config)
    family.decode(model, embeds[:, :-1], mask[:, :-1], positions[..., :-1], cache)
    if seen is not None:
        attend = functional.scaled_dot_product_attention

        def watched(query, key, *rest, **more):
            seen.append((query.shape[1], key.shape[1]))
            return attend(query, key, *rest, **more)

        monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    return family.decode(model, embeds[:, -1:], mask, positions[..., -1:], cache)[0]


def test_heads_that_share_a_key_are_rows_of_one_head(loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    last_state(loaded, torch.ones(2, TOKENS, dtype=torch.long), seen, monkeypatch)
    assert set(seen) == {(2, 2)}


@pytest.mark.parametrize("padded", [False, True])
def test_states_are_those_of_the_library_s_own_attention(loaded, monkeypatch: pytest.MonkeyPatch, padded: bool) -> None:
    mask = torch.ones(2, TOKENS, dtype=torch.long)
    mask[0, :3] = 0 if padded else 1
    packed = last_state(loaded, mask)
    monkeypatch.setattr(adapters, "open_mask", lambda *given: None)
    torch.testing.assert_close(packed, last_state(loaded, mask), atol=2e-5, rtol=2e-5)


def test_a_mask_is_given_to_one_new_token_of_grouped_heads_that_open_mask_on_a_processor(loaded) -> None:
    family, model, _ = loaded
    config = copy.deepcopy(model.get_submodule(family.decoder).config)
    embeds, mask = torch.zeros(1, 1, config.hidden_size), torch.ones(1, TOKENS, dtype=torch.long)
    whole, windowed = DynamicCache(config=config), DynamicCache(config=config)
    windowed.layers[-1].is_sliding = True
    given = adapters.open_mask(config, embeds, mask, whole)
    assert (given.dtype, given.shape, given.all()) == (torch.bool, (1, 1, 1, TOKENS), True)
    for other in (
        (embeds, mask, windowed),
        (embeds, mask, None),
        (embeds.expand(1, 2, -1), mask, whole),
        (embeds.to("meta"), mask, whole),
        (embeds, given, whole),
        (embeds, {"full_attention": given}, whole),
        (embeds, mask * (torch.arange(TOKENS) > 0), whole),
    ):
        assert adapters.open_mask(config, *other) is None
    eager, alone = copy.deepcopy(config), copy.deepcopy(config)
    eager._attn_implementation = "eager"
    alone.num_key_value_heads = alone.num_attention_heads
    assert [adapters.open_mask(one, embeds, mask, whole) for one in (eager, alone)] == [None, None]
