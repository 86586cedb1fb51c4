"""Pictures as a model's processor takes them, and what they and prompts cost in patches and tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import nn

from quantrust.errors import QuantrustError
from quantrust.models.family import Family, VisionInputs


def preprocess_pictures(
    family: Family, processor: Any, pictures: Sequence[Image.Image], names: Sequence[str]
) -> VisionInputs:
    """Preprocess pictures that pass the vision tower together.

    Parameters
    ----------
    family : Family
    processor : object
        As `load_processor` returns it.
    pictures : sequence of PIL.Image.Image
        RGB.
    names : sequence of str
        What an error calls each.

    Returns
    -------
    VisionInputs

    Raises
    ------
    QuantrustError
        If the processor refuses one of them, which the message names.
    """
    try:
        return family.preprocess(processor, list(pictures))
    except ValueError:
        for picture, name in zip(pictures, names, strict=True):
            _try_alone(family, processor, picture, name)
        raise


def _try_alone(family: Family, processor: Any, picture: Image.Image, name: str) -> None:
    try:
        family.preprocess(processor, [picture])
    except ValueError as error:
        raise QuantrustError(
            f"{name}, {picture.width} x {picture.height}, is refused by the model's processor ({error}); leave the "
            "image out or replace it"
        ) from error


@dataclass(frozen=True)
class PictureCost:
    """A picture of one size, as a model reads it.

    Attributes
    ----------
    patches : int
        What the vision tower reads.
    tiles : int
        Parts that it reads apart from one another; patches of different tiles do not attend to each other.
    tokens : int
        What the language model reads of it.
    prompt_tokens : int
        The whole prompt, without a question and its answer.
    pixel_bytes : int
        The preprocessed picture in host memory.
    """

    patches: int
    tiles: int
    tokens: int
    prompt_tokens: int
    pixel_bytes: int


def picture_cost(
    family: Family, model: nn.Module, processor: Any, template: str, width: int, height: int
) -> PictureCost:
    """Preprocess a blank picture and count.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
        Only shapes are read, so that its weights may be on the meta device.
    processor : object
        As `load_processor` returns it.
    template : str
        The user's text; must hold `{question}`.
    width, height : int
        In pixels.

    Returns
    -------
    PictureCost
    """
    inputs = family.preprocess(processor, [Image.new("RGB", (width, height))])
    image_token = family.image_token(processor)
    before, after = family.prompt_frame(processor, template)
    prompt = before.replace(image_token, inputs.placeholders[0]) + after
    pixels = inputs.tensors["pixel_values"]
    return PictureCost(
        patches=patches_of(family, model, inputs),
        # flat patches come without the shape of a picture
        tiles=pixels.shape[:-3].numel() if pixels.dim() > 3 else 1,
        tokens=inputs.placeholders[0].count(image_token),
        prompt_tokens=len(processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]),
        pixel_bytes=sum(tensor.nbytes for tensor in inputs.tensors.values()),
    )


def patches_of(family: Family, model: nn.Module, inputs: VisionInputs) -> int:
    """Return how many patches the vision tower reads of preprocessed pictures.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
        Only shapes are read, so that its weights may be on the meta device.
    inputs : VisionInputs
    """
    # every patch is read once by the convolution that embeds them
    embedder = next(layer for layer in family.layers(model) if layer.component == "vision" and layer.kind == "conv")
    return inputs.tensors["pixel_values"].numel() // model.get_submodule(embedder.name).weight[0].numel()
