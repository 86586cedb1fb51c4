"""The shapes of a model's blocks, from which memory is estimated; its weights may be on the meta device."""

from dataclasses import dataclass

from torch import nn

from quantrust.models.family import Family


@dataclass(frozen=True)
class Stack:
    """A stack of like blocks.

    Attributes
    ----------
    depth : int
        Blocks.
    hidden : int
        Channels that go from block to block.
    widest : int
        Output channels of the widest linear.
    heads : int
        Attention heads.
    cached : int
        Channels of keys and values together, of one token in one block.
    weights : int
        Of a block.
    """

    depth: int
    hidden: int
    widest: int
    heads: int
    cached: int
    weights: int

    def activations(self, tokens: int, itemsize: int) -> int:
        """Return an upper bound of the bytes that a block holds at once while it runs over so many tokens.

        That is within its MLP: three tensors as wide as its widest linear (of a gated MLP the gate, the other factor
        and their product), and four of the width between blocks (what entered, what was added to it, its norm, and
        the float32 copy that the norm is taken of, in as far as it is wider).
        """
        return tokens * itemsize * (3 * self.widest + 4 * self.hidden)


def vision_stack(family: Family, model: nn.Module) -> Stack:
    """Return the shape of the vision tower's blocks."""
    return _stack(family, model, "vision")


def language_stack(family: Family, model: nn.Module) -> Stack:
    """Return the shape of the blocks that read prompts: the language model's, if there is one."""
    return _stack(family, model, family.reader)


def _stack(family: Family, model: nn.Module, component: str) -> Stack:
    blocks = family.blocks(model, component)
    block = model.get_submodule(blocks[0])
    linears = [module for module in block.modules() if isinstance(module, nn.Linear)]
    described = family.components[component]
    config = model.get_submodule(described.main).config
    heads = getattr(config, described.heads)
    hidden = linears[0].in_features
    keys = getattr(config, "num_key_value_heads", None) or heads
    return Stack(
        depth=len(blocks),
        hidden=hidden,
        widest=max(linear.out_features for linear in linears),
        heads=heads,
        cached=2 * keys * (getattr(config, "head_dim", None) or hidden // heads),
        weights=sum(parameter.numel() for parameter in block.parameters()),
    )
