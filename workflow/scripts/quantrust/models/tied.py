"""The head and the token embedding of a model, where they are one tensor."""

from torch import nn

from quantrust.models.family import LayerRef


def tied_layers(model: nn.Module, layers: list[LayerRef]) -> tuple[str | None, str | None]:
    """Return the names of head and token embedding if they are one tensor, else two times None."""
    heads = [layer.name for layer in layers if layer.component == "head"]
    embeddings = [layer.name for layer in layers if layer.component == "embedding"]
    for head in heads:
        for embedding in embeddings:
            if model.get_submodule(head).weight is model.get_submodule(embedding).weight:
                return head, embedding
    return None, None
