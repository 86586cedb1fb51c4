"""A trial of a model folder before a study rests on it: one prompt about a picture, through processor and model.

What is wrong between the files of a folder shows only when they meet: tokens that the embedding has no row for,
pictures that become more tokens than features, tiles that do not fit the tower, a template without a picture.
"""

from typing import Any

import torch
from PIL import Image
from torch import nn

from quantrust.errors import QuantrustError
from quantrust.models.bounded import MEMORY, SECONDS, ends_soon
from quantrust.models.family import Family, Role, VisionInputs
from quantrust.models.named_errors import blaming
from quantrust.models.processing import load_tokenizer
from quantrust.models.skeleton import build_skeleton

PROMPT = "{question}"
QUESTION = "What is in the picture?"
SIZE = (96, 16)
"""Width and height of the trial pictures. So wide, they become few tiles where pictures are cut to squares."""
MOST_TOKENS = 1 << 14
"""Image tokens that a trial picture may become: what published processors make of their largest ones. The vision tower
takes time and memory by their square."""


def try_model(folder: str, processor: Any) -> None:
    """Let a model with one block of each stack read a prompt about a picture, whatever its weights.

    Of a model of any size that takes seconds, and little memory beside one block: nothing is written to the weights.

    Parameters
    ----------
    folder : str
        With config, tokenizer and processor; no weight is read.
    processor : object
        As the family loads it from this folder.

    Raises
    ------
    QuantrustError
        As `try_processor` does, or if the vision tower, the connector or the language model cannot run, or pictures
        become another number of features than of tokens in the prompt.
    """
    family, model = build_skeleton(folder)
    inputs = try_processor(folder, family, model, processor)
    for component in ("vision", family.reader):
        for name in family.blocks(model, component)[1:]:
            model.get_submodule(name).forward = _pass_on
    advice = "config.json and the files of the processor must be of one model: get the folder again"
    with torch.inference_mode():
        with blaming(f"{folder}: the vision tower cannot read a picture that the processor made", advice):
            encoded = family.encode_images(model, inputs)
        # cross-attention reads whatever there is of a picture
        for image in encoded if family.has_language_model else ():
            tokens = image.placeholder.count(family.image_token(processor))
            if len(image.features) != tokens:
                raise QuantrustError(
                    f"{folder}: a picture becomes {tokens} tokens in the prompt, but {len(image.features)} features in "
                    f"the model; {advice}"
                )
        with blaming(f"{folder}: the language model cannot read a prompt about a picture", advice):
            questions = [QUESTION] * len(encoded)
            prompts = family.language_inputs(model, processor, questions, encoded, template=PROMPT)
            if not bool((prompts.roles == Role.QUESTION).any()):
                raise QuantrustError(
                    f"{folder}: the tokenizer makes no token of {QUESTION!r}; get tokenizer.json again"
                )
            hidden, _ = family.read_prompts(model, prompts)
            if family.head is not None:
                family.logits(model, hidden[:, -1])


def _pass_on(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return hidden_states


def try_processor(folder: str, family: Family, model: nn.Module, processor: Any) -> VisionInputs:
    """Prepare two pictures and a prompt.

    Parameters
    ----------
    folder : str
    family : Family
    model : torch.nn.Module
        Only shapes, config and buffers are read, so that its weights may be on the meta device.
    processor : object
        As the family loads it from this folder.

    Returns
    -------
    VisionInputs
        Of both pictures.

    Raises
    ------
    QuantrustError
        If a token has no row in the embedding or is not in the vocabulary, the chat template does not end or does not
        show one picture and one question, or the processor makes of pictures what is not finite, the same of different
        ones, or more than `MOST_TOKENS` of a small one.
    """
    _check_tokens(folder, family, model, processor)
    if not ends_soon(lambda: family.prompt_frame(processor, PROMPT)):
        raise QuantrustError(
            f"{folder}: the chat template {processor.chat_template[:60]!r}... does not end within {SECONDS} seconds "
            f"and {MEMORY >> 30} GiB of memory; give the model another chat_template"
        )
    try:
        family.prompt_frame(processor, PROMPT)
    except QuantrustError as error:
        raise QuantrustError(f"{folder}: {error}") from None
    ramp = Image.linear_gradient("L").resize(SIZE)
    pictures = [Image.merge("RGB", [grey] * 3) for grey in (ramp, ramp.point(lambda value: 255 - value))]
    with blaming(f"{folder}: the image processor cannot read a picture", "correct its file, or get it again"):
        first = family.preprocess(processor, pictures[:1])
    tokens = first.placeholders[0].count(family.image_token(processor))
    if tokens > MOST_TOKENS:
        raise QuantrustError(
            f"{folder}: the image processor makes {tokens:,} tokens of a picture of {SIZE[0]} x {SIZE[1]} pixels; "
            f"expected at most {MOST_TOKENS:,}: correct its sizes, or get its file again"
        )
    with blaming(f"{folder}: the image processor cannot read a picture", "correct its file, or get it again"):
        inputs = family.preprocess(processor, pictures)
        alone = [first.tensors["pixel_values"], family.preprocess(processor, pictures[1:]).tensors["pixel_values"]]
    if not all(bool(tensor.isfinite().all()) for tensor in inputs.tensors.values()):
        raise QuantrustError(f"{folder}: the image processor makes NaN or infinite values of a picture; get it again")
    if torch.equal(*alone):
        raise QuantrustError(f"{folder}: the image processor makes the same of different pictures; get its file again")
    return inputs


def _check_tokens(folder: str, family: Family, model: nn.Module, processor: Any) -> None:
    """Raise when prompts or answers have a token that the model does not know."""
    rows = model.get_submodule(family.embedding).num_embeddings
    vocabulary = processor.tokenizer.get_vocab()
    # the processor adds tokens that it lacks to its own
    published = load_tokenizer(folder)
    with blaming(f"{folder}: the processor lacks a token", "get the folder again"):
        tokens = family.prompt_tokens(processor)
    for token in tokens:
        ids = published(str(token), add_special_tokens=False)["input_ids"]
        if token not in published.get_vocab() or ids != [vocabulary[token]]:
            raise QuantrustError(
                f"{folder}: tokenizer.json has no token {token!r}, which prompts and answers need; get the tokenizer "
                "of this model"
            )
    last = max(vocabulary, key=vocabulary.__getitem__)
    if vocabulary[last] >= rows:
        raise QuantrustError(
            f"{folder}: the token {last!r} has the id {vocabulary[last]}, but the embedding has {rows} rows, for ids "
            f"from 0 to {rows - 1}; tokenizer and weights must be of one model: get the folder again"
        )
    named, image_token = getattr(model.config, "image_token_id", None), family.image_token(processor)
    if named is not None and named != vocabulary[image_token]:
        raise QuantrustError(
            f"{folder}: image_token_id is {named} in config.json, but {image_token!r} is {vocabulary[image_token]} in "
            "tokenizer.json; both must be of one model: get the folder again"
        )
    # a model without a language model generates nothing
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    for end in ends if isinstance(ends, list) else [] if ends is None else [ends]:
        if type(end) is not int or not 0 <= end < rows:
            raise QuantrustError(
                f"{folder}: {end!r} is to end an answer (eos_token_id of generation_config.json or config.json), "
                f"expected an id from 0 to {rows - 1}; get the file again"
            )
    for name, buffer in model.named_buffers():
        if buffer.device.type != "meta" and not bool(buffer.isfinite().all()):
            raise QuantrustError(f"{folder}: config.json makes NaN or infinite values of {name}; get the file again")
