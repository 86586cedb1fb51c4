"""Pictures of one dataset, kept from one variant of a model to the next that reads them alike.

Variants that differ in their language model alone get the same features of a picture. All variants of a model get the
same preprocessed picture.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from quantrust.models.family import EncodedImage, Family, VisionInputs

LIMIT = 1 << 30
"""Bytes of preprocessed pictures, and of features of pictures, that are kept; what comes after is made again."""


@dataclass(frozen=True)
class EncodedChunk:
    """The pictures of a chunk as a language model reads them.

    Attributes
    ----------
    images : dict of str to EncodedImage
        By their paths.
    halved : int
        Batches that did not fit the memory and were halved.
    """

    images: dict[str, EncodedImage]
    halved: int


class KeptPictures:
    """What is kept, by the number of the chunk that pictures lie in.

    Parameters
    ----------
    inputs, encoded : int
        Bytes of preprocessed pictures, and of features of pictures; 0 keeps none.
    """

    def __init__(self, inputs: int = LIMIT, encoded: int = LIMIT) -> None:
        self.limits = {"inputs": inputs, "encoded": encoded}
        self._inputs: dict[int, list[VisionInputs]] = {}
        self._encoded: dict[int, EncodedChunk] = {}
        self._sight: str | None = None
        self._held = {"inputs": 0, "encoded": 0}

    def read_by(self, family: Family, model: nn.Module) -> None:
        """Give up the features of pictures if another vision tower or connector made them than those of this model."""
        if self.limits["encoded"] and (sight := sight_digest(family, model)) != self._sight:
            self._sight = sight
            self._encoded.clear()
            self._held["encoded"] = 0

    def encoded(self, chunk: int) -> EncodedChunk | None:
        """Return the features of a chunk's pictures, None where they are not kept."""
        return self._encoded.get(chunk)

    def inputs(self, chunk: int) -> list[VisionInputs] | None:
        """Return the preprocessed pictures of a chunk, batch by batch; None where they are not kept."""
        return self._inputs.get(chunk)

    def keep_encoded(self, chunk: int, found: EncodedChunk) -> None:
        """Keep the features of a chunk's pictures, as far as the limit goes."""
        images = found.images.values()
        size = sum(tensor.nbytes for image in images for tensor in (image.features, *image.deepstack))
        if self._held["encoded"] + size <= self.limits["encoded"]:
            self._held["encoded"] += size
            self._encoded[chunk] = found

    def keeping_inputs(self, chunk: int, batches: Iterator[VisionInputs]) -> Iterator[VisionInputs]:
        """Yield preprocessed batches of a chunk's pictures, and keep them, as far as the limit goes."""
        passed: list[VisionInputs] = []
        room = self.limits["inputs"] - self._held["inputs"]
        for inputs in batches:
            room -= sum(tensor.nbytes for tensor in inputs.tensors.values())
            # no batch of a chunk that has no room is held any longer
            if room < 0:
                passed.clear()
            else:
                passed.append(_of_this_process(inputs))
            yield inputs
        if room >= 0:
            self._held["inputs"] = self.limits["inputs"] - room
            self._inputs[chunk] = passed

    @property
    def held_inputs(self) -> int:
        """Bytes of preprocessed pictures that are kept."""
        return self._held["inputs"]


def sight_digest(family: Family, model: nn.Module) -> str:
    """Return the SHA-256 of all tensors of a model but those of the language model's blocks, last norm and head.

    Two models with the same digest turn a picture into the same features.
    """
    apart = (*family.blocks(model, "language"), family.final_norm, *([] if family.head is None else [family.head]))
    summary = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not any(name.startswith(f"{part}.") for part in apart):
            summary.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            summary.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return summary.hexdigest()


def _of_this_process(inputs: VisionInputs) -> VisionInputs:
    """Copy tensors that a worker has put into shared memory, of which a machine may have little."""
    tensors = {name: tensor.clone() if tensor.is_shared() else tensor for name, tensor in inputs.tensors.items()}
    return replace(inputs, tensors=tensors)
