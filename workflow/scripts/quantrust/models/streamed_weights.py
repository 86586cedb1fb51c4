"""A model whose weights stay on disk until a part of it runs.

The parts are the blocks of vision tower, connector and language model, the token embedding and the head: nearly all
weights. What lies between them (patches, positions, norms) is small and is loaded at once. So is a norm within a block
that absorbs a scale of another block: it is changed after its own block was written. Weights that are not loaded
are on the meta device, so that running a part by mistake is an error instead of a wrong result.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from quantrust.errors import QuantrustError
from quantrust.models.components import STACKS
from quantrust.models.family import Family
from quantrust.models.weights import is_finite, stored_tensors

DTYPE = torch.float32
"""The dtype of weights once they are loaded."""


class StreamedWeights:
    """Loads and releases the parts of one model.

    Parameters
    ----------
    folder : str or Path
        Unquantized, in the Hugging Face layout; one file of weights or several.
    family : Family
    model : torch.nn.Module
        As `build_skeleton` returns it. Its parameters are replaced by ones on the meta device, its buffers moved to the
        device, and what lies between the parts is loaded.
    device : str or torch.device

    Attributes
    ----------
    parts : list of str
        Dotted names, in the order of the forward pass but for the embedding and the head, which come last.

    Raises
    ------
    QuantrustError
        If a file or a key is missing, a key is unexpected or of another shape, or a weight is not finite once it is
        loaded.
    """

    def __init__(
        self, folder: str | Path, family: Family, model: nn.Module, device: str | torch.device = "cpu"
    ) -> None:
        self.folder, self.model, self.device = folder, model, device
        self.parts = [
            *(block for name in STACKS for block in family.blocks(model, name)),
            *(layer.name for layer in family.layers(model) if layer.component in ("embedding", "head")),
        ]
        self._between = _absorbers_elsewhere(family, model)
        stored = stored_tensors(folder, model)
        tensors = model.state_dict(keep_vars=True)
        # tied tensors are one, and stored under one of their names
        by_tensor = {id(tensors[name]): at for name, at in stored.items()}
        self._places = {name: by_tensor[id(tensor)] for name, tensor in tensors.items()}
        for module in model.modules():
            for leaf, buffer in module._buffers.items():
                module._buffers[leaf] = None if buffer is None else buffer.to(device)
        for name in tensors:
            self._assign(name, torch.empty_like(tensors[name], device="meta"))
        for name in tensors:
            if self.part_of(name) is None:
                self._assign(name, self.read(name))

    def part_of(self, name: str) -> str | None:
        """Return the part that a module or tensor lies in, None where it lies between the parts."""
        if self._lies_between(name):
            return None
        return next((part for part in self.parts if f"{name}.".startswith(f"{part}.")), None)

    def read(self, name: str) -> Tensor:
        """Return a tensor of the model, in float32 on the device; the model is not changed.

        Raises
        ------
        QuantrustError
            If it is not finite.
        """
        place = self._places[name]
        # pages that were read count as memory until the mapping is closed: one mapping for each tensor
        with safe_open(place.path, "pt") as file:
            tensor = file.get_tensor(place.key)
            tensor = tensor.to(self.device).to(DTYPE if tensor.is_floating_point() else tensor.dtype, copy=True)
        self._check(name, tensor)
        return tensor

    @contextmanager
    def loaded(self, part: str) -> Iterator[None]:
        """Keep the weights of a part in the model while the block runs.

        Parameters
        ----------
        part : str
            One of `parts`, not loaded yet. The block may change its weights and replace its layers.
        """
        for name in self._names_in(part):
            self._assign(name, self.read(name))
        try:
            yield
        finally:
            for name, tensor in self.model.get_submodule(part).state_dict(keep_vars=True).items():
                if not self._lies_between(f"{part}.{name}"):
                    self._assign(f"{part}.{name}", torch.empty_like(tensor, device="meta"))

    @contextmanager
    def looked_up(self, embedding: str) -> Iterator[None]:
        """Let an embedding read the rows that it is asked for, while the block runs, instead of holding its table."""
        place = self._places[f"{embedding}.weight"]
        module = self.model.get_submodule(embedding)

        def forward(token_ids: Tensor) -> Tensor:
            wanted, places = token_ids.unique(return_inverse=True)
            with safe_open(place.path, "pt") as file:
                # the file is mapped: of its pages only those of these rows are read
                rows = file.get_tensor(place.key)[wanted.cpu()].to(self.device).to(DTYPE)
            self._check(f"{embedding}.weight", rows)
            # a subclass may scale what it looks up; the row of padding has no place of its own here
            weight, padding = module.weight, module.padding_idx
            module.weight, module.padding_idx = nn.Parameter(rows, requires_grad=False), None
            try:
                return type(module).forward(module, places)
            finally:
                module.weight, module.padding_idx = weight, padding

        module.forward = forward
        try:
            yield
        finally:
            del module.forward

    def _names_in(self, part: str) -> list[str]:
        return [name for name in self._places if name.startswith(f"{part}.") and not self._lies_between(name)]

    def _lies_between(self, name: str) -> bool:
        return any(f"{name}.".startswith(f"{module}.") for module in self._between)

    def _assign(self, name: str, tensor: Tensor) -> None:
        parent, _, leaf = name.rpartition(".")
        module = self.model.get_submodule(parent)
        if leaf in module._parameters:
            module._parameters[leaf] = nn.Parameter(tensor.detach(), requires_grad=False)
        else:
            module._buffers[leaf] = tensor

    def _check(self, name: str, tensor: Tensor) -> None:
        if not is_finite(tensor):
            raise QuantrustError(f"{self.folder}: {name} holds NaN or infinite values; restore the model's files")


def _absorbers_elsewhere(family: Family, model: nn.Module) -> list[str]:
    """Return the modules within blocks that absorb scales of linears in other blocks."""
    blocks = [block for component in STACKS for block in family.blocks(model, component)]
    found = {
        group.previous
        for block in blocks
        for group in family.scale_groups(model, block)
        if group.previous is not None and not group.previous.startswith(f"{block}.")
    }
    return sorted(name for name in found if any(name.startswith(f"{block}.") for block in blocks))
