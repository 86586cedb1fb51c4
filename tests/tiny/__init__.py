"""Tiny random models of every family that has a module here, in the layout in which the family is published.

A module is named like its family and ends in a record, `TINY`. It names the published model whose facts are taken
(`quantrust.planning.published`), and says what is smaller. Weights are random, as in `published_layout`.
"""

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from published_layout import ANSWER_WORDS, build_byte_level_tokenizer, write_weights
from quantrust.planning.published import PublishedModel, image_token_key, published_models

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")
"""The families, by the names of their modules."""

ORDINARY = 640
"""Tokens that are not special."""

SIZES = ((40, 60), (640, 480), (30, 300), (300, 97))
"""Widths and heights of the pictures that the tests show: enlarged, reduced, and thin ones."""


@dataclass(frozen=True)
class Tiny:
    """A family's tiny model, and what is known of it beforehand.

    Attributes
    ----------
    repository : str
        The published model, on the hub.
    config, preprocessor : mapping
        What differs in `config.json` and `preprocessor_config.json`; maps are merged.
    wide : mapping
        What differs in the `config.json` of the model of full width and two blocks.
    settings : mapping
        What a study sets of the processor, so that pictures stay small.
    end : str
        The token that ends an answer.
    tokens : tuple of int
        Image tokens of pictures of `SIZES`, worked out by hand.
    folds : mapping of str to int
        Scale groups of each component that something absorbs.
    refused : tuple of str
        Linears that read what no scale may be folded into, by the ends of their names; nothing absorbs their scales.
    published_name : callable
        Maps the name of a tensor in the library to that under which it is published.
    given : callable
        Maps a rendered chat template to the text that the library's processor is given, where it adds something itself.
    wide_settings : mapping
        What a study sets of the processor of the model of full width.
    wide_linears : int
        Linears in the two blocks of its language model.
    nested : bool
        Whether the library's processor takes a list of pictures for each prompt.
    generation : mapping
        Of `generation_config.json`; none where it is empty.
    """

    repository: str
    config: Mapping[str, Any]
    wide: Mapping[str, Any]
    preprocessor: Mapping[str, Any]
    settings: Mapping[str, Any]
    end: str
    tokens: tuple[int, ...]
    folds: Mapping[str, int]
    refused: tuple[str, ...]
    published_name: Callable[[str], str] = str
    given: Callable[[str], str] = str
    wide_settings: Mapping[str, Any] = field(default_factory=dict)
    wide_linears: int = 14
    nested: bool = False
    generation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def published(self) -> PublishedModel:
        """The facts of the published model."""
        return published_models()[self.repository]


def tiny(family: str) -> Tiny:
    """Return the record of a family."""
    return importlib.import_module(f"tiny.{family}").TINY


def write_tiny(folder: Path, family: str, *, wide: bool = False, changes: Mapping[str, Any] | None = None) -> None:
    """Write a model folder.

    Parameters
    ----------
    folder : Path
        Made, with its parents.
    family : str
        One of `NAMES`.
    wide : bool
        Whether it has its published width, and is small by its two blocks alone.
    changes : mapping, optional
        What else differs in `config.json`.
    """
    model = tiny(family)
    folder.mkdir(parents=True)
    published = model.published
    config = merged(merged(published.config, model.wide if wide else model.config), changes or {})
    text = config.get("text_config", config)
    ordinary = text["vocab_size"] - len(published.special) if wide else ORDINARY
    tokenizer = build_byte_level_tokenizer(list(published.special), ordinary)
    assert tokenizer.get_vocab_size() <= text["vocab_size"]
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {image_token_key(config): tokenizer.token_to_id(published.special[-1])}
    preprocessor = published.preprocessor if wide else merged(published.preprocessor, model.preprocessor)
    for name, content in (
        ("config.json", {**config, **ids}),
        ("preprocessor_config.json", preprocessor),
        ("tokenizer_config.json", {"pad_token": published.special[0], "padding_side": "left", **published.tokenizer}),
        ("chat_template.json", {"chat_template": published.template}),
    ):
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
    if model.generation:
        (folder / "generation_config.json").write_text(json.dumps(model.generation), encoding="utf-8")
    answers = [tokenizer.token_to_id(f"Ġ{word}") for word in ANSWER_WORDS]
    assert None not in answers
    shard_bytes = 2**30 if wide else 2**18
    (end,) = tokenizer.encode(model.end).ids
    write_weights(folder, family, model.published_name, shard_bytes, 0, answers, end)


def merged(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a map with others' values in the place of its own; maps in it are merged."""
    inner = {key: merged(content.get(key, {}), value) for key, value in changes.items() if isinstance(value, Mapping)}
    return {**content, **changes, **inner}
