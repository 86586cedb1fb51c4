"""What is known of a family without its adapter: whether there is one, its settings, pictures and the image's tokens.

The adapter says so in `processor_keys`, `max_aspect_ratio`, `published_image_tokens` and the like. They are read here
without importing the adapter, which takes the model library: the config is checked, and questions are read, where that
is not installed.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from quantrust.digest import SCRIPTS
from quantrust.named_modules import FAMILIES, declared, module_names

ATTENTIONS = ("eager", "sdpa", "flash_attention_2")
"""What decoders attend with, unless their adapter says less."""


def processor_keys(family: str) -> tuple[str, ...]:
    """Return the settings of a family's processor that a config may give, those in maps with dots.

    Parameters
    ----------
    family : str
        The name of a module of the families' package.
    """
    return tuple(declared(FAMILIES, family, "processor_keys", ()))


def max_aspect_ratio(families: Iterable[str]) -> float | None:
    """Return the longer side of a picture over its shorter one, up to which the processors of all families take it.

    Parameters
    ----------
    families : iterable of str
        The names of modules of the families' package.

    Returns
    -------
    float or None
        None where all take every picture.
    """
    limits = [declared(FAMILIES, family, "max_aspect_ratio", None) for family in families]
    return min((limit for limit in limits if limit is not None), default=None)


def published_image_tokens(family: str) -> tuple[str, ...]:
    """Return what published models of a family call the tokens of an image: that of its parts, and those around them.

    Parameters
    ----------
    family : str
        The name of a module of the families' package.

    Returns
    -------
    tuple of str
        Empty where the adapter does not say.
    """
    return tuple(declared(FAMILIES, family, "published_image_tokens", ()))


def blocks_in_connector(family: str) -> bool:
    """Return whether the connector of a family has blocks, of which a scheme may name thirds and layer types.

    Parameters
    ----------
    family : str
        The name of a module of the families' package.
    """
    return bool(declared(FAMILIES, family, "blocks_in_connector", False))


def has_language_model(family: str) -> bool:
    """Return whether a family has a language model, whose layers a scheme may name.

    Parameters
    ----------
    family : str
        The name of a module of the families' package.
    """
    return bool(declared(FAMILIES, family, "reader", "language") == "language")


def matches(family: str) -> bool:
    """Return whether the models of a family match images with texts, and write no answers.

    Parameters
    ----------
    family : str
        The name of a module of the families' package.
    """
    return bool(declared(FAMILIES, family, "matches", False))


def attentions(family: str) -> tuple[str, ...]:
    """Return what the decoder of a family can attend with.

    Parameters
    ----------
    family : str
        The name of a module of the families' package.
    """
    return tuple(declared(FAMILIES, family, "attentions", ATTENTIONS))


def family_name(config: Mapping[str, Any]) -> object:
    """Return the name of the family that a `config.json` describes a model of, whether it has an adapter or not.

    It is the `model_type`, with `_` for `-`, unless an adapter declares the config's `architectures` as its own.

    Parameters
    ----------
    config : mapping
        Of the file; nothing of it is trusted.
    """
    named, model_type = config.get("architectures"), config.get("model_type")
    architectures = {name for name in named if isinstance(name, str)} if isinstance(named, list) else set()
    for family in module_names(FAMILIES):
        architecture = declared(FAMILIES, family, "architecture", None)
        if architecture in architectures and model_type == declared(FAMILIES, family, "model_type", None):
            return family
    return model_type.replace("-", "_") if isinstance(model_type, str) else model_type


def unsupported(family: object) -> str | None:
    """Return what is wrong with the name of a family that has no adapter, None if it has one.

    Parameters
    ----------
    family : object
        As a config gives it, or as `family_name` says.
    """
    known = module_names(FAMILIES)
    if family in known:
        return None
    shortest = min(len(_path(name).read_bytes().splitlines()) for name in known)
    return (
        f"there is no adapter for models of type {family!r}; supported: {', '.join(known)}. docs/families.md shows "
        f"how to write an adapter, one module, the shortest of {shortest} lines"
    )


def unknown_settings(family: str, settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of the settings that a config gives for a family's processor.

    Parameters
    ----------
    family : str
        The name of a module of the families' package.
    settings : mapping
        By the names of `preprocessor_config.json`.

    Yields
    ------
    str
        Of a setting that the family does not have: its name, with dots, and the names that are allowed.
    """
    allowed = processor_keys(family)
    for name in _leaves(settings):
        if name not in allowed:
            yield f"unknown setting {name} of the processor of {family}; allowed: {', '.join(allowed) or 'nothing'}"


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _path(family: str) -> Path:
    """Return the file of a family's module."""
    return SCRIPTS.joinpath(*FAMILIES.split("."), f"{family}.py")
