"""Attention for sequences in which several segments follow one prefix and do not see each other.

All questions about an image share the prompt's beginning, image tokens included. Laid out as the prefix and then slots
of equal length, one segment each, left-aligned, attention is that of (prefix + one segment) for every slot: exactly
what separate prompts compute, without computing the prefix again, and without a mask over the whole sequence.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import AttentionInterface

ATTENTION = "shared_prefix"


@dataclass(frozen=True)
class Layout:
    """Where the prefix and the slots lie.

    Attributes
    ----------
    prefix : int
        Tokens of the prefix.
    runs : tuple of (int, int)
        Runs of slots that follow, each (number of slots, tokens in a slot). Segments are padded on the right, where
        padding is seen by no real token.
    """

    prefix: int
    runs: tuple[tuple[int, int], ...]

    @property
    def length(self) -> int:
        """Tokens of the whole sequence."""
        return self.prefix + sum(slots * length for slots, length in self.runs)

    def slot_starts(self) -> list[int]:
        """Return the place of the first token of every slot."""
        starts, place = [], self.prefix
        for slots, length in self.runs:
            starts += [place + k * length for k in range(slots)]
            place += slots * length
        return starts

    def offsets(self) -> torch.Tensor:
        """Return each token's place in its slot, int64, shape (length,); zero in the prefix."""
        parts = [torch.zeros(self.prefix, dtype=torch.int64)]
        parts += [torch.arange(length).repeat(slots) for slots, length in self.runs]
        return torch.cat(parts)

    def as_mask(self) -> torch.Tensor:
        """Return a 4-D placeholder that keeps the decoder from building a mask; attention follows the layout."""
        return torch.ones(1, 1, 1, 1, dtype=torch.bool)


def shared_prefix_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    layout: Layout,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend in float32, each slot to the prefix and to itself, causally.

    Parameters
    ----------
    module : torch.nn.Module
        The attention module that calls.
    query : torch.Tensor, shape (batch, heads, layout.length, head_dim)
    key, value : torch.Tensor, shape (batch, key-value heads, layout.length, head_dim)
    attention_mask : torch.Tensor or None
        Ignored: the layout says who sees whom.
    scaling : float
    layout : Layout

    Returns
    -------
    output : torch.Tensor, shape (batch, layout.length, heads, head_dim)
    weights : None
    """
    groups = query.shape[1] // key.shape[1]
    dtype = query.dtype
    with torch.autocast(query.device.type, enabled=False):
        query, key, value = query.float(), key.float(), value.float()
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        prefix = layout.prefix
        keys, values = key[:, :, :prefix], value[:, :, :prefix]
        parts = [F.scaled_dot_product_attention(query[:, :, :prefix], keys, values, is_causal=True, scale=scaling)]
        start = prefix
        for slots, length in layout.runs:
            stop = start + slots * length
            seen = torch.ones(length, prefix + length, dtype=torch.bool, device=query.device).tril(prefix)
            parts.append(
                _join(
                    F.scaled_dot_product_attention(
                        _split(query[:, :, start:stop], slots),
                        torch.cat([_share(keys, slots), _split(key[:, :, start:stop], slots)], dim=2),
                        torch.cat([_share(values, slots), _split(value[:, :, start:stop], slots)], dim=2),
                        attn_mask=seen,
                        scale=scaling,
                    ),
                    slots,
                )
            )
            start = stop
        return torch.cat(parts, dim=2).transpose(1, 2).to(dtype), None


def _split(run: torch.Tensor, slots: int) -> torch.Tensor:
    """(batch, heads, slots * length, dim) to (batch * slots, heads, length, dim)."""
    return run.unflatten(2, (slots, -1)).transpose(1, 2).flatten(0, 1)


def _join(run: torch.Tensor, slots: int) -> torch.Tensor:
    """Undo `_split`."""
    return run.unflatten(0, (-1, slots)).transpose(1, 2).flatten(2, 3)


def _share(prefix: torch.Tensor, slots: int) -> torch.Tensor:
    """(batch, heads, prefix, dim) to (batch * slots, heads, prefix, dim), the same for every slot."""
    return prefix[:, None].expand(-1, slots, -1, -1, -1).flatten(0, 1)


AttentionInterface.register(ATTENTION, shared_prefix_attention)
