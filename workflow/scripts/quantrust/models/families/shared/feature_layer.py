"""Vision towers from whose blocks one state is read, which need not be that of the last one."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from quantrust.errors import QuantrustError


def check_parts(config: PreTrainedConfig, family: str, parts: Mapping[str, str], published: str) -> None:
    """Raise when a part of a model is of another architecture than a family's adapter describes.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        Of the model.
    family : str
    parts : mapping of str to str
        The `model_type` that the adapter knows, by the key of the part in the config.
    published : str
        The models that are made of these parts.

    Raises
    ------
    QuantrustError
        Names the part, its architecture, and the one that the adapter knows.
    """
    for part, expected in parts.items():
        if (found := getattr(config, part).model_type) != expected:
            raise QuantrustError(
                f"{part} has model_type {found!r}, but the adapter of {family} knows only {expected!r} there, as in "
                f"{published}; write an adapter of its own for this model"
            )


def running_blocks(config: PreTrainedConfig, family: str, blocks: str) -> tuple[dict[str, Any], list[str]]:
    """Return how a model is described without the vision blocks after the one whose output the connector reads.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        With `vision_feature_layer` and `vision_config`.
    family : str
    blocks : str
        Dotted name of the list of vision blocks.

    Returns
    -------
    changes : dict
    idle : list of str
        As `quantrust.models.family.Family.running_part` returns them.

    Raises
    ------
    QuantrustError
        If the connector reads the output of several blocks, or of one that the tower does not have.
    """
    layer, depth = config.vision_feature_layer, config.vision_config.num_hidden_layers
    if not isinstance(layer, int):
        raise QuantrustError(
            f"vision_feature_layer is {layer!r}, but the adapter of {family} reads the output of one block; write an "
            "adapter of its own for this model"
        )
    # state 0 is what enters the first block
    running = layer if layer >= 0 else depth + 1 + layer
    if not 1 <= running <= depth:
        raise QuantrustError(
            f"vision_feature_layer is {layer}, but the vision tower has {depth} blocks; expected a number from 1 "
            f"to {depth}, or from -{depth} to -1: get config.json again"
        )
    idle = [rf"^{blocks}\.{index}\." for index in range(running, depth)]
    changes = {"vision_feature_layer": running, "vision_config": {"num_hidden_layers": running}}
    return (changes, idle) if idle else ({}, [])
