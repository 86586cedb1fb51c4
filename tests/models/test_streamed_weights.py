"""Weights that stay on disk until a part of the model runs."""

import pytest
import torch
from torch import nn

from quantrust.models.loading import load_model
from quantrust.models.skeleton import build_skeleton
from quantrust.models.streamed_weights import StreamedWeights


class ScaledEmbedding(nn.Embedding):
    """As some families multiply their token embedding."""

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        return super().forward(token_ids) * 8


@pytest.mark.parametrize(("kind", "factor"), [(nn.Embedding, 1), (ScaledEmbedding, 8)])
def test_an_embedding_that_is_looked_up_computes_what_it_does_with_its_table(kind, factor, model_folders):
    folder = model_folders["idefics3"]
    family, whole, _ = load_model(folder)
    expected = whole.get_submodule(family.embedding).weight.detach()
    _, model = build_skeleton(folder)
    embedding = model.get_submodule(family.embedding)
    embedding.__class__ = kind
    embedding.padding_idx = len(expected) - 1
    weights = StreamedWeights(folder, family, model)
    token_ids = torch.tensor([[5, 0, 5], [7, len(expected) - 1, 1]])
    with torch.no_grad(), weights.looked_up(family.embedding):
        assert torch.equal(embedding(token_ids), expected[token_ids] * factor)
    assert embedding.weight.is_meta
    assert embedding.padding_idx == len(expected) - 1
