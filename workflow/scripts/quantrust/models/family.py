"""What a family adapter offers: the component map, the groups that share a scale, and inputs with token roles.

An adapter knows one architecture of `transformers`. Most of it is data, as `quantrust.models.components` defines it;
code is only for what is peculiar to the architecture. An adapter never holds a model: methods take it as an argument,
so that one adapter serves float, quantized and partially loaded models alike.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import takewhile
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from quantrust.errors import QuantrustError
from quantrust.models.components import COMPONENTS, STACKS, Component, GroupRule, NormKind
from quantrust.models.named_errors import blaming
from quantrust.models.one_token import open_mask
from quantrust.models.processor_settings import ATTENTIONS

# Stands for the question while a chat template is rendered once for many questions.
_SENTINEL = "\u2402question\u2403"

LAYER_KINDS: tuple[tuple[tuple[type[nn.Module], ...], Literal["linear", "embedding", "conv"]], ...] = (
    ((nn.Linear,), "linear"),
    ((nn.Embedding,), "embedding"),
    ((nn.Conv2d, nn.Conv3d), "conv"),
)
"""Modules with a matrix of weights, their subclasses included, and what each is."""

_RESERVED: WeakKeyDictionary[Any, dict[str, list[str]]] = WeakKeyDictionary()
"""What `Family.reserved_tokens` returned, by tokenizer and family: some vocabularies have thousands of added tokens."""

_PROMPTS: WeakKeyDictionary[Any, "dict[tuple[str, ...], Tokenized]"] = WeakKeyDictionary()
"""Tokenized prompts by tokenizer, and by what they are put together from: one question is asked about many images."""
_KEPT_TOKENS = 1 << 20
"""Of the prompts of a tokenizer, at most so many tokens are kept, some 45 bytes each. Then it begins anew."""


class Role(IntEnum):
    """What a token of a prompt is: padding, an image feature, template text, the answer, or the question itself."""

    PAD = 0
    IMAGE = 1
    TEXT = 2
    ANSWER = 3
    QUESTION = 4


Tokenized = tuple[tuple[int, ...], tuple[Role, ...]]
"""The token ids of a prompt, and their roles."""


@dataclass(frozen=True)
class LayerRef:
    """A module that holds a matrix of weights.

    Attributes
    ----------
    name : str
        Dotted name in `model.named_modules()`.
    component : {"vision", "connector", "language", "embedding", "head"}
    block : int or None
        Index in the component's stack of blocks.
    layer_type : {"attention", "self_attention", "cross_attention", "mlp"} or None
    kind : {"linear", "embedding", "conv"}
    """

    name: str
    component: str
    block: int | None
    layer_type: str | None
    kind: str


@dataclass(frozen=True)
class ScaleGroup:
    """Linears that read one activation, so that they share one per-channel scale.

    Attributes
    ----------
    previous : str or None
        Module whose output channels absorb the inverse of the scale (a norm, or a linear); None if nothing can.
    linears : tuple of str
    inspected : str
        Module whose output error a scale search measures.
    kind : {"attention", "mlp"}
    offset : int
        First output channel of `previous` that feeds the linears: where the values begin in a fused projection.
    repeats : int
        How often the channels of `previous` follow one another in the linears' input, where tokens are merged before
        they are read; the scale repeats with them.
    norm : NormKind or None
        What `previous` multiplies by, if it is a norm that the family knows.
    """

    previous: str | None
    linears: tuple[str, ...]
    inspected: str
    kind: Literal["attention", "mlp"]
    offset: int = 0
    repeats: int = 1
    norm: NormKind | None = None


@dataclass(frozen=True)
class EncodedImage:
    """An image as the language model reads it.

    Attributes
    ----------
    features : torch.Tensor, shape (tokens, hidden)
    placeholder : str
        Text that stands for the image in a prompt; holds as many image tokens as `features` has rows.
    grid : tuple of int or None
        Patches over time, height and width, where positions depend on them (Qwen2-VL).
    deepstack : tuple of torch.Tensor, shape (tokens, hidden) each
        Features of earlier blocks of the vision tower, where a decoder reads them: the first is added to what its first
        block yields, and so on (DeepStack, arXiv 2406.04334).
    """

    features: torch.Tensor
    placeholder: str
    grid: tuple[int, int, int] | None
    deepstack: tuple[torch.Tensor, ...] = ()


@dataclass(frozen=True)
class VisionInputs:
    """Preprocessed images: tensors for the vision tower, and per image its placeholder and grid."""

    tensors: dict[str, torch.Tensor]
    placeholders: tuple[str, ...]
    grids: tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class LanguageInputs:
    """A batch of prompts with the image features in place.

    Attributes
    ----------
    inputs_embeds : torch.Tensor, shape (batch, tokens, hidden)
    attention_mask : torch.Tensor, bool, shape (batch, tokens)
    position_ids : torch.Tensor, int64, shape (batch, tokens), or (3, batch, tokens) under multimodal rotary positions
    token_ids : torch.Tensor, int64, shape (batch, tokens)
    roles : torch.Tensor, int8, shape (batch, tokens)
        Values of `Role`.
    deepstack : tuple of torch.Tensor, shape (image tokens, hidden) each
        Of all image tokens of the batch, row after row, as `EncodedImage` has them.
    seen : torch.Tensor, shape (batch, patches, channels), or None
        What cross-attention reads of the image of each prompt.
    """

    inputs_embeds: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor
    token_ids: torch.Tensor
    roles: torch.Tensor
    deepstack: tuple[torch.Tensor, ...] = ()
    seen: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> "LanguageInputs":
        """Return the batch with every tensor on `device`."""
        levels = tuple(level.to(device) for level in self.deepstack)
        tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return replace(self, **tensors, deepstack=levels)

    def part(self, start: int, stop: int) -> "LanguageInputs":
        """Return the prompts from `start` to `stop`, as views, without padding that all of them share."""
        rows = slice(start, stop)
        first = int((self.roles[rows] != Role.PAD).any(dim=0).int().argmax())
        before, within = (int((self.roles[some] == Role.IMAGE).sum()) for some in (slice(start), rows))
        return LanguageInputs(
            inputs_embeds=self.inputs_embeds[rows, first:],
            attention_mask=self.attention_mask[rows, first:],
            position_ids=self.position_ids[..., rows, first:],
            token_ids=self.token_ids[rows, first:],
            roles=self.roles[rows, first:],
            deepstack=tuple(level[before : before + within] for level in self.deepstack),
            seen=None if self.seen is None else self.seen[rows],
        )

    def up_to_image(self, behind: int = 0) -> "LanguageInputs":
        """Return the prompts up to the last token of their images, padded on the left.

        Parameters
        ----------
        behind : int
            So many tokens that follow the image are returned as well.
        """
        ends = self._image_ends() + behind
        lengths = (self.attention_mask & (self._columns() < ends)).sum(dim=1)
        length = int(lengths.max())
        taken = self._columns(length) + ends - length
        places, present = taken.clamp(min=0), self._columns(length) >= length - lengths[:, None]
        spatial = places.expand((*self.position_ids.shape[:-1], length))
        return LanguageInputs(
            inputs_embeds=self.inputs_embeds.gather(1, places[..., None].expand(-1, -1, self.inputs_embeds.shape[-1])),
            attention_mask=present,
            position_ids=self.position_ids.gather(-1, spatial),
            token_ids=self.token_ids.gather(1, places),
            roles=self.roles.gather(1, places).where(present, int(Role.PAD)),
            deepstack=self.deepstack,
        )

    def after_image(self, behind: int = 0) -> "LanguageInputs":
        """Return what follows the images of the prompts, padded on the left; no row where some prompt has nothing.

        Parameters
        ----------
        behind : int
            So many tokens that follow the image are left out.
        """
        ends = self._image_ends() + behind
        total = self.roles.shape[1]
        first = int(ends.min()) if bool((ends < total).all()) else total
        present = (self._columns() >= ends)[:, first:]
        return LanguageInputs(
            inputs_embeds=self.inputs_embeds[:, first:],
            attention_mask=present,
            position_ids=self.position_ids[..., first:],
            token_ids=self.token_ids[:, first:],
            roles=self.roles[:, first:].where(present, int(Role.PAD)),
        )

    def _columns(self, count: int | None = None) -> torch.Tensor:
        """Return the numbers of the columns, or of the first of so many, shape (1, columns)."""
        return torch.arange(self.roles.shape[1] if count is None else count, device=self.roles.device)[None]

    def _image_ends(self) -> torch.Tensor:
        """Return the column behind the last image token of each prompt, int64, shape (batch, 1)."""
        return torch.where(self.roles == Role.IMAGE, self._columns() + 1, 0).amax(dim=1, keepdim=True)


class Family(ABC):
    """Adapter of one architecture."""

    name: str
    model_class: type[PreTrainedModel]
    vision: Component
    connector: Component
    language: Component
    # The component whose blocks read prompts; those before it in `STACKS` read pictures alone. It is another one where
    # there is no language model. Read from the source as well.
    reader: str = "language"
    # Dotted names of the token embedding, and of the linear from states to logits, if there is one.
    embedding: str
    head: str | None
    # Dotted name of the norm between the language model's last block and the head.
    final_norm: str
    # The norms that a scale may be folded into, by their exact class: a subclass may compute something else.
    norms: tuple[tuple[type[nn.Module], NormKind], ...]
    # The buffer of the token embedding by which it multiplies what it looks up; None where it does not.
    embedding_factor: str | None = None
    # What the model can attend with. Flash attention has no mask, so that no token can see a later one, and does not
    # compute in float32. Read from the source as well.
    attentions: tuple[str, ...] = ATTENTIONS
    # What the published prompt format puts between the assistant's turn and the answer.
    answer_prefix: str
    # Settings of preprocessor_config.json that a study may set, those in maps with dots; read from the source as well.
    processor_keys: tuple[str, ...] = ()
    # The longer side of a picture over its shorter one, up to which the processor takes it under all settings; None
    # where it takes every picture. Read from the source as well.
    max_aspect_ratio: float | None = None
    # Whether the connector has a stack of blocks, so that it has thirds and layer types. Read from the source as well.
    blocks_in_connector: bool = False
    # Whether the models match images with texts, and write no answers. Read from the source as well.
    matches: bool = False
    # Whether no token up to the end of a prompt's image sees a later one, so that the rest may be read later.
    reads_in_parts: bool = True
    # Modules and parameters that stay in float32 whatever the dtype of the others, in checkpoints as well.
    float32: tuple[str, ...] = ()
    # What published models call the tokens that image features are put between and in place of; the first one stands
    # for one row of features. Read from the source as well; a model's own tokenizer counts where it says otherwise.
    published_image_tokens: tuple[str, ...] = ()

    @property
    def components(self) -> dict[str, Component]:
        """What lies where, by `COMPONENTS`."""
        head = Component(() if self.head is None else (self.head,))
        parts = (self.vision, self.connector, self.language, Component((self.embedding,)), head)
        return dict(zip(COMPONENTS, parts, strict=True))

    @property
    def has_language_model(self) -> bool:
        """Whether prompts are read by a language model, which has its blocks for itself: pictures pass other ones."""
        return self.reader == "language"

    @property
    def seeing(self) -> tuple[str, ...]:
        """The components that read pictures alone, in the order of the forward pass."""
        return STACKS[: STACKS.index(self.reader)]

    @property
    def decoder(self) -> str:
        """Dotted name of the language model's decoder, without the head."""
        return self.language.main

    @property
    def tower(self) -> str:
        """Dotted name of the vision tower."""
        return self.vision.main

    def component_of(self, name: str) -> tuple[str, int | None, str | None]:
        """Return (component, block, layer type) of the module or parameter called `name`."""
        hosts = [
            (len(module), component)
            for component, described in self.components.items()
            for module in described.modules
            if f"{name}.".startswith(f"{module}.")
        ]
        if not hosts:
            raise ValueError(f"{name} is in no component of {self.name}")
        # the innermost module that is named decides: an embedding lies in the decoder, and a connector may in the tower
        _, component = max(hosts)
        for blocks in self.components[component].blocks:
            if (place := blocks.place(name)) is not None:
                index, inside = place
                return component, index, blocks.type_of(inside)
        return component, None, None

    def keeps_float32(self, name: str) -> bool:
        """Return whether the module or tensor called `name` stays in float32 in a model of bfloat16."""
        return any(f"{name}.".startswith(f"{kept}.") for kept in self.float32)

    def blocks(self, model: nn.Module, component: str) -> list[str]:
        """Return the dotted names of a component's blocks, in the order of execution; embedding and head have none."""
        return [
            name
            for blocks in self.components[component].blocks
            for name in (
                [blocks.path]
                if blocks.single
                else [f"{blocks.path}.{index}" for index in range(len(model.get_submodule(blocks.path)))]
            )
        ]

    def deepstack_levels(self, model: nn.Module) -> int:
        """Return how many blocks within the vision tower the decoder reads features of."""
        return 0

    def stages(self, model: nn.Module, component: str) -> list[list[str]]:
        """Return a component's blocks in stages, within which each block reads what the one before yields.

        A block that reads something else begins a stage, and so does one behind a block whose output is also read
        elsewhere. The language model is one stage; what is added to its states between blocks begins none. A connector
        may have no blocks, and no stage.
        """
        blocks = self.blocks(model, component)
        return [blocks] if blocks else []

    def scale_groups(self, model: nn.Module, block_name: str) -> list[ScaleGroup]:
        """Return the groups of linears in one block of a component that share an input, in the order of execution."""
        (described,) = (
            blocks
            for component in self.components.values()
            for blocks in component.blocks
            if block_name == (blocks.path if blocks.single else f"{blocks.path}.{block_name.rpartition('.')[2]}")
        )
        block = model.get_submodule(block_name)
        return [
            self._scale_group(model, block_name, rule)
            for rule in described.groups
            if not rule.optional or _has(block, rule.linears[0].removeprefix("."))
        ]

    def _scale_group(self, model: nn.Module, block_name: str, rule: GroupRule) -> ScaleGroup:
        """Return what a rule says of one block."""

        def full(name: str) -> str:
            return f"{block_name}{name}" if name.startswith(".") else name

        linears = tuple(map(full, rule.linears))
        inspected = linears[0] if rule.inspected is None else full(rule.inspected)
        group = ScaleGroup(None, linears, inspected, rule.kind)
        if rule.previous is None:
            return group
        width = model.get_submodule(linears[0]).in_features
        previous = model.get_submodule(full(rule.previous))
        channels = getattr(previous, "out_features", None)
        if channels is not None:
            values = width if rule.fused else 0
            # with fewer keys and values than queries, a channel of the values feeds several channels that are read
            absorbs = channels == 2 * values + width
            return replace(group, previous=full(rule.previous), offset=2 * values) if absorbs else group
        weight = getattr(previous, "weight", None)
        return replace(
            group,
            previous=full(rule.previous),
            repeats=width // weight.numel() if rule.merged and weight is not None else 1,
            # without a weight there is nothing that a scale could be folded into
            norm=None if weight is None else dict(self.norms).get(type(previous)),
        )

    @abstractmethod
    def load_processor(self, folder: str) -> Any:
        """Load the processor of a model folder in the published layout, without any video part."""

    @abstractmethod
    def preprocess(self, processor: Any, images: list[Image.Image]) -> VisionInputs:
        """Turn RGB images into the tensors of the vision tower."""

    @abstractmethod
    def end_token(self, processor: Any) -> str:
        """Return the token that ends an answer."""

    def end_token_id(self, processor: Any) -> int:
        """Return the id of the token that ends an answer."""
        return processor.tokenizer.convert_tokens_to_ids(self.end_token(processor))

    def end_token_ids(self, model: nn.Module, processor: Any) -> tuple[int, ...]:
        """Return the tokens that end an answer: that of the turn, and those at which the model's folder ends one."""
        own = self.end_token_id(processor)
        published = model.generation_config.eos_token_id
        others = published if isinstance(published, list) else [] if published is None else [published]
        return tuple(dict.fromkeys([own, *others]))

    def running_part(self, config: PreTrainedConfig) -> tuple[dict[str, Any], list[str]]:
        """Return how a model is described without the blocks that never run.

        Parameters
        ----------
        config : transformers.PreTrainedConfig
            Of the family's model.

        Returns
        -------
        changes : dict
            The values of `config.json` that differ then, nested as they are there.
        idle : list of str
            Regular expressions of the names that the tensors of those blocks have in the whole model. A folder may hold
            these tensors.

        Raises
        ------
        QuantrustError
            If the config describes a model that the adapter does not cover.
        """
        return {}, []

    def answer_tokens(self, processor: Any, answer: str) -> list[int]:
        """Return the tokens that an answer adds to the assistant's turn, the end token included."""
        text = self.answer_prefix + answer + self.end_token(processor)
        return processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    def image_token(self, processor: Any) -> str:
        """Return the token that stands for one row of image features."""
        return processor.image_token

    def image_mark(self, processor: Any) -> str:
        """Return what the chat template shows in the place of an image: its token, unless the family has another."""
        return self.image_token(processor)

    def prompt_tokens(self, processor: Any) -> tuple[str, ...]:
        """Return the tokens that prompts and answers are put together with; each must be one of the vocabulary."""
        return (self.image_token(processor), self.end_token(processor))

    def reserved_tokens(self, processor: Any) -> list[str]:
        """Return the tokens that no text of a user may hold, because they would be read as a part of the prompt itself.

        These are the special tokens of the vocabulary, those of pictures and videos among them, and whatever else
        prompts are put together with. Other tokens that were added to a vocabulary may be ordinary text, such as line
        ends in Gemma's.

        Parameters
        ----------
        processor : object
            As `load_processor` returns it. Its tokenizer is looked through once.
        """
        known = _RESERVED.setdefault(processor.tokenizer, {})
        if self.name not in known:
            added = processor.tokenizer.added_tokens_decoder.values()
            special = {token.content for token in added if token.special}
            known[self.name] = sorted(special.union(map(str, self.prompt_tokens(processor))))
        return known[self.name]

    def refuse_reserved(self, processor: Any, texts: Iterable[str], kind: str = "") -> None:
        """Raise a QuantrustError for the first text that holds a token of `reserved_tokens`.

        Parameters
        ----------
        processor : object
        texts : iterable of str
        kind : str
            What the message puts before a text, with a space behind it.
        """
        reserved = self.reserved_tokens(processor)
        for text in texts:
            if (token := first_held(reserved, text)) is not None:
                raise QuantrustError(
                    f"{kind}{text!r} holds {token!r}, which is a token of the model's prompts; take it out"
                )

    def _image_features(self, model: nn.Module, tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        return list(model.get_image_features(**tensors).pooler_output)

    def _position_ids(
        self, model: nn.Module, token_ids: torch.Tensor, roles: torch.Tensor, images: list[EncodedImage]
    ) -> torch.Tensor:
        return ((roles != Role.PAD).long().cumsum(dim=1) - 1).clamp(min=0)

    def layers(self, model: nn.Module) -> list[LayerRef]:
        """Return every module with a matrix of weights, in the order of `named_modules`.

        Raises
        ------
        QuantrustError
            If one lies in a block and the family does not say whether it belongs to attention or MLP.
        """
        layers = []
        for name, module in model.named_modules():
            kind = next((kind for classes, kind in LAYER_KINDS if isinstance(module, classes)), None)
            if kind is None:
                continue
            layer = LayerRef(name, *self.component_of(name), kind)
            if layer.block is not None and layer.layer_type is None:
                raise QuantrustError(
                    f"{name} ({type(module).__name__}) lies in a block, but the adapter of {self.name} does not say "
                    "whether it belongs to attention or MLP; add it to layer_types there"
                )
            layers.append(layer)
        return layers

    def encode_images(self, model: nn.Module, inputs: VisionInputs) -> list[EncodedImage]:
        """Run vision tower and connector over preprocessed images."""
        device = next(model.parameters()).device
        features = [
            image
            for part in self.passes(inputs)
            for image in self._image_features(model, {name: value.to(device) for name, value in part.tensors.items()})
        ]
        return [EncodedImage(*parts) for parts in zip(features, inputs.placeholders, inputs.grids, strict=True)]

    def passes(self, inputs: VisionInputs) -> list[VisionInputs]:
        """Return the images that pass the vision tower together, one batch after another; here all at once."""
        return [inputs]

    def language_inputs(
        self,
        model: nn.Module,
        processor: Any,
        questions: list[str],
        images: list[EncodedImage],
        *,
        template: str = "{question}",
        answers: list[str] | None = None,
    ) -> LanguageInputs:
        """Build a left-padded batch of prompts, one image each.

        Parameters
        ----------
        model : torch.nn.Module
        processor : object
            As `load_processor` returns it.
        questions : list of str
        images : list of EncodedImage
            The image of each question.
        template : str
            The user's text; must hold `{question}`.
        answers : list of str or None
            Appended after the assistant's turn with the end token (teacher forcing).

        Returns
        -------
        LanguageInputs

        Raises
        ------
        QuantrustError
            If a text holds a token of `reserved_tokens`, or the prompt has more or fewer image tokens than features.
        """
        self.refuse_reserved(processor, [*questions, *(answers or [])])
        rows, roles = [], []
        prompts = self._tokenized(processor, questions, [image.placeholder for image in images], template)
        for k, (ids, role) in enumerate(prompts):
            if answers is not None:
                answer_ids = self.answer_tokens(processor, answers[k])
                ids, role = (*ids, *answer_ids), (*role, *[Role.ANSWER] * len(answer_ids))
            rows.append(ids)
            roles.append(role)
        length = max(len(ids) for ids in rows)
        device = next(model.parameters()).device
        padding = processor.tokenizer.pad_token_id
        token_ids = torch.tensor([(padding,) * (length - len(ids)) + ids for ids in rows], device=device)
        role_ids = torch.tensor(
            [(Role.PAD,) * (length - len(role)) + role for role in roles], dtype=torch.int8, device=device
        )
        embeds = model.get_submodule(self.embedding)(token_ids)
        features = torch.cat([image.features for image in images]).to(embeds)
        places = role_ids == Role.IMAGE
        if int(places.sum()) != len(features):
            raise QuantrustError(
                f"{int(places.sum())} image tokens in the prompts for {len(features)} image features: processor and "
                "config.json are not of one model; prepare the model again"
            )
        embeds = embeds.masked_scatter(places[..., None], features)
        positions = self._position_ids(model, token_ids, role_ids, images)
        levels = zip(*(image.deepstack for image in images), strict=True)
        deepstack = tuple(torch.cat(level).to(embeds) for level in levels)
        return LanguageInputs(embeds, role_ids != Role.PAD, positions, token_ids, role_ids, deepstack)

    def question_tokens(self, processor: Any, questions: list[str], template: str = "{question}") -> list[int]:
        """Return how many tokens each question is in its prompt.

        Parameters
        ----------
        processor : object
            As `load_processor` returns it.
        questions : list of str
        template : str
            The user's text; must hold `{question}`.

        Returns
        -------
        list of int
            0 where nothing of the question is left: of no text, or of one that the tokenizer takes out.
        """
        placeholders = [self.image_token(processor)] * len(questions)
        prompts = self._tokenized(processor, questions, placeholders, template)
        return [roles.count(Role.QUESTION) for _, roles in prompts]

    def prompt_lengths(
        self, processor: Any, questions: list[str], images: list[EncodedImage], template: str = "{question}"
    ) -> list[int]:
        """Return how many tokens the model reads of each prompt, those of its image included.

        Parameters
        ----------
        processor : object
            As `load_processor` returns it.
        questions : list of str
        images : list of EncodedImage
            The image of each question.
        template : str
            The user's text; must hold `{question}`.
        """
        placeholders = [image.placeholder for image in images]
        return [len(ids) for ids, _ in self._tokenized(processor, questions, placeholders, template)]

    def tokens_behind_images(
        self, processor: Any, questions: list[str], images: list[EncodedImage], template: str = "{question}"
    ) -> tuple[list[int], int]:
        """Return how many tokens each prompt has behind its image, and how many of them all prompts share.

        Parameters
        ----------
        processor : object
            As `load_processor` returns it.
        questions : list of str
            At least one.
        images : list of EncodedImage
            The image of each question.
        template : str
            The user's text; must hold `{question}`.

        Returns
        -------
        counts : list of int
        shared : int
            The first tokens behind the image that are the same in all prompts. None of them belongs to a question, and
            none is the last one of a prompt.
        """
        prompts = self._tokenized(processor, questions, [image.placeholder for image in images], template)
        behind: dict[int, tuple[int, ...]] = {}
        counts = []
        for prompt in prompts:
            ids, roles = prompt
            start = len(roles) - roles[::-1].index(Role.IMAGE)
            counts.append(len(roles) - start)
            stop = roles.index(Role.QUESTION) if Role.QUESTION in roles else len(roles) - 1
            behind[id(prompt)] = ids[start:stop]
        same = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*behind.values(), strict=False))
        return counts, sum(1 for _ in same)

    def _tokenized(
        self, processor: Any, questions: list[str], placeholders: list[str], template: str
    ) -> list[Tokenized]:
        """Return the token ids of each prompt, and their roles."""
        before, after = self.prompt_frame(processor, template)
        image_token = self.image_token(processor)
        kept = _PROMPTS.setdefault(processor.tokenizer, {})
        keys = [(before, after, image_token, *prompt) for prompt in zip(questions, placeholders, strict=True)]
        found = {key: prompt for key in keys if (prompt := kept.get(key)) is not None}
        if new := [key for key in dict.fromkeys(keys) if key not in found]:
            found |= zip(new, self._tokenize(processor, new), strict=True)
            # a list, because a server may ask in several threads
            if sum(len(ids) for ids, _ in [*kept.values()]) > _KEPT_TOKENS:
                kept.clear()
            kept.update((key, found[key]) for key in new)
        return [found[key] for key in keys]

    @staticmethod
    def _tokenize(processor: Any, prompts: list[tuple[str, ...]]) -> Iterator[Tokenized]:
        """Yield the token ids and roles of prompts, each what comes before and after, image token, question, image."""
        image_id = processor.tokenizer.convert_tokens_to_ids(prompts[0][2])
        texts, spans = [], []
        for before, after, image_token, question, placeholder in prompts:
            head = before.replace(image_token, placeholder)
            texts.append(head + question + after)
            spans.append((len(head), len(head) + len(question)))
        encoded = processor.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        for ids, offsets, (start, stop) in zip(encoded["input_ids"], encoded["offset_mapping"], spans, strict=True):
            yield (
                tuple(ids),
                tuple(
                    Role.IMAGE if token == image_id else Role.QUESTION if first < stop and last > start else Role.TEXT
                    for token, (first, last) in zip(ids, offsets, strict=True)
                ),
            )

    def prompt_frame(self, processor: Any, template: str) -> tuple[str, str]:
        """Return what the chat template and the prompt put before and after the question.

        Raises
        ------
        QuantrustError
            If the template is not Jinja, or shows the user's text not at all, or more than once, or anything but one
            image before the question; or if the prompt holds a token of `reserved_tokens`.
        """
        content = [{"type": "image"}, {"type": "text", "text": template.replace("{question}", _SENTINEL)}]
        which = f"the chat template {processor.chat_template[:60]!r}..."
        with blaming(f"{which} cannot be rendered", "correct it, or give the model another chat_template"):
            text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        around = text.split(_SENTINEL)
        if len(around) != 2:
            raise QuantrustError(
                f"{which} shows the user's text {len(around) - 1} times; expected once: give the model another "
                "chat_template"
            )
        before, after = around
        image_token, mark = self.image_token(processor), self.image_mark(processor)
        self.refuse_reserved(processor, [template], kind="the prompt ")
        if (before.count(mark), after.count(mark)) != (1, 0):
            raise QuantrustError(
                f"{which} shows the image {before.count(mark)} times before the question and "
                f"{after.count(mark)} times after it; expected once before: give the model another chat_template"
            )
        return before.replace(mark, image_token), after

    def read_prompts(
        self, model: nn.Module, inputs: LanguageInputs, cache: Any | None = None
    ) -> tuple[torch.Tensor, Any]:
        """Run the decoder over whole prompts; the tokens that follow them go through `decode`.

        A family whose decoder reads more of a prompt than embeddings, mask and positions overrides this.

        Parameters
        ----------
        model : torch.nn.Module
        inputs : LanguageInputs
        cache : object or None
            An empty one; None computes without one.

        Returns
        -------
        hidden : torch.Tensor, shape (batch, tokens, hidden)
            Last layer, after the final norm.
        cache : object or None
        """
        return self.decode(model, inputs.inputs_embeds, inputs.attention_mask, inputs.position_ids, cache)

    def decode(
        self,
        model: nn.Module,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | dict[str, torch.Tensor],
        position_ids: torch.Tensor,
        cache: Any | None = None,
    ) -> tuple[torch.Tensor, Any]:
        """Run the decoder on new tokens, as they are: what is peculiar to prompts is in `read_prompts`.

        Parameters
        ----------
        model : torch.nn.Module
        inputs_embeds : torch.Tensor, shape (batch, new tokens, hidden)
        attention_mask : torch.Tensor or dict
            Shape (batch, cached + new tokens), a 4-D mask, or what else the library's decoder takes.
        position_ids : torch.Tensor
            Of the new tokens.
        cache : object or None
            The cache of an earlier call; None computes without one.

        Returns
        -------
        hidden : torch.Tensor, shape (batch, new tokens, hidden)
            Last layer, after the final norm.
        cache : object or None
        """
        decoder = model.get_submodule(self.decoder)
        seen = open_mask(decoder.config, inputs_embeds, attention_mask, cache)
        output = decoder(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask if seen is None else seen,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        return output.last_hidden_state, output.past_key_values

    def logits(self, model: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
        """Apply the language-model head; shape (..., hidden) to (..., vocabulary)."""
        return model.get_submodule(self.head)(hidden)


class MatchingFamily(Family):
    """Adapter of an architecture that judges whether images and texts match."""

    @abstractmethod
    def image_states(self, model: nn.Module, images: list[EncodedImage]) -> torch.Tensor:
        """Return what the queries saw in images, shape (images, queries, hidden)."""

    @abstractmethod
    def image_embeddings(self, model: nn.Module, images: list[EncodedImage]) -> torch.Tensor:
        """Return what images are compared with texts by; of unit length, shape (images, queries, channels)."""

    @abstractmethod
    def text_embeddings(
        self, model: nn.Module, processor: Any, texts: list[str], most: int | None = None
    ) -> torch.Tensor:
        """Return what texts, cut at `most` tokens, are compared with images by; of unit length, (texts, channels)."""

    @abstractmethod
    def pairs(
        self,
        model: nn.Module,
        processor: Any,
        texts: list[str],
        images: list[EncodedImage],
        *,
        most: int | None = None,
        role: Role = Role.QUESTION,
    ) -> LanguageInputs:
        """Build a batch of pairs, each of an image and a text that is cut at `most` tokens."""

    @abstractmethod
    def matching_logits(self, model: nn.Module, inputs: LanguageInputs) -> torch.Tensor:
        """Return the logits of not matching and of matching, shape (pairs, 2)."""


def first_held(tokens: Iterable[str], text: str) -> str | None:
    """Return the first of some tokens that a text holds, None if it holds none."""
    return next((token for token in tokens if token in text), None)


def _has(block: nn.Module, name: str) -> bool:
    """Return whether a block has a module of this name."""
    return any(name == own for own, _ in block.named_modules())
