"""The decoder blocks of Gemma. Each of their norms multiplies by one plus its weight."""

from dataclasses import replace

from quantrust.models.components import Blocks
from quantrust.models.families.shared.llama import llama_blocks

NORM_BEFORE_MLP = ".pre_feedforward_layernorm"
"""In blocks whose `post_attention_layernorm` norms what attention adds. Nothing but the sum reads that norm."""


def gemma_blocks(path: str) -> Blocks:
    """Return the description of the blocks of the first Gemma in the list with this dotted name: those of Llama."""
    return llama_blocks(path)


def gemma3_blocks(path: str) -> Blocks:
    """Return the description of the blocks of Gemma 3 in the list with this dotted name.

    Queries and keys are normed behind their projections, which keeps what a scale of their common input undoes.
    """
    blocks = llama_blocks(path)
    groups = tuple(
        replace(group, previous=NORM_BEFORE_MLP) if group.previous == ".post_attention_layernorm" else group
        for group in blocks.groups
    )
    return replace(blocks, groups=groups)
