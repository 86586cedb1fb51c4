"""The layer plan: which layers a scheme quantizes, how, and why not the others. Made before anything is touched."""

from collections import Counter
from math import prod
from typing import Any

import polars as pl
from torch import nn

from quantrust.errors import QuantrustError
from quantrust.models.components import STACKS
from quantrust.models.family import Family, LayerRef, ScaleGroup
from quantrust.models.tied import tied_layers
from quantrust.quantization.folding import require_absorber
from quantrust.quantization.grid import effective_group_size
from quantrust.quantization.method import Method, load_method
from quantrust.quantization.scheme import THIRDS, UNQUANTIZED_BITS, Scheme, Selection, is_scheme_word

LAYER_PLAN_SCHEMA = pl.Schema(
    {
        "layer": pl.String,
        "component": pl.String,
        "block": pl.Int32,
        "third": pl.String,
        "layer_type": pl.String,
        "rows": pl.Int64,
        "columns": pl.Int64,
        "bits": pl.Int32,
        "group": pl.Int64,
        "grid_dtype": pl.String,
        "ordered": pl.Boolean,
        "method": pl.String,
        "selected_by": pl.String,
        "scaled_by": pl.String,
        "shares": pl.String,
        "note": pl.String,
        "reason": pl.String,
    }
)
"""Columns of a layer plan.

`grid_dtype` is the dtype of scales and zeros, null where it is that of the bits (`storage_dtype`), and `ordered` says
whether columns have an order of their own; only what others quantized needs either.

`rows` and `columns` are output and input channels (a convolution's kernel counts as input channels). `bits`, `group`
and `method` are null for layers that are skipped, and `reason` says why. `selected_by` is the row of the scheme's table
that decides about the layer. `method` is what the layer's weight goes through. Where the scheme's own method has
nothing to go by it is the method that its record names for that, such as `rtn`, and `note` says so. `note` also says
where the group size is not the scheme's and, once a layer is quantized, where its scales were too small for the dtype
in which they are stored. `scaled_by` is the operation that absorbs the inverse of a layer's channel scales, null where
nothing does and the plain grid is used. `shares` names the layer whose codes a tied layer uses.
"""


def build_layer_plan(family: Family, model: nn.Module, scheme: Scheme) -> pl.DataFrame:
    """Decide for every layer of a model what a scheme does to it.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
        Unquantized; only shapes are read, so that its weights may be on the meta device.
    scheme : Scheme

    Returns
    -------
    polars.DataFrame
        One row per layer, in the order of `family.layers`, with the columns of `LAYER_PLAN_SCHEMA`.

    Raises
    ------
    QuantrustError
        If a row of the scheme's table decides about no layer that can be quantized, or scales would be folded into a
        norm that the family does not know.
    """
    layers = family.layers(model)
    method = None if scheme.method is None else load_method(scheme.method)
    groups = {
        linear: group
        for component in scheme.components
        for block in family.blocks(model, component)
        for group in family.scale_groups(model, block)
        for linear in group.linears
    }
    if scheme.searches_scales:
        for group in groups.values():
            require_absorber(model, group)
    thirds = thirds_of(layers)
    head, embedding = tied_layers(model, layers)
    rows, decided = [], []
    for layer in layers:
        third = thirds[layer.name]
        selection = scheme.row_of(layer.component, third, layer.layer_type)
        reason = _reason(layer, selection)
        if reason is None and layer.name in (head, embedding):
            reason = _reason_of_tied(scheme, head if layer.name == embedding else embedding)
        row = layer_row(model, layer, third, None if selection is None else str(selection), reason)
        if method is not None and selection is not None and reason is None:
            row |= _quantized(layer, row["columns"], scheme, method, selection, groups.get(layer.name))
        rows.append(row)
        if reason is None and layer.name == head:
            rows[-1] |= _shared(scheme, embedding)
        decided.append((selection, reason))
    plan = pl.DataFrame(rows, schema=LAYER_PLAN_SCHEMA)
    for selection in scheme.table:
        _require_layers(family, scheme, selection, plan, decided)
    if scheme.table and plan["bits"].null_count() == len(plan):
        raise QuantrustError(
            f"scheme {scheme.name} selects no layer of this {family.name} model, which has no language model; take the "
            "preset -mixed or -full, or a table that names its components"
        )
    return plan


def describe_layer_plan(plan: pl.DataFrame) -> str:
    """Return a line for each component with the layers and weights that are quantized, then one for each note on some.

    Returns
    -------
    str
        For example `language: 112 of 112 layers, 786,432 of 786,432 weights, 4 bits`.
    """
    lines = []
    for component, group in plan.group_by("component", maintain_order=True):
        weights = (group["rows"] * group["columns"]).sum()
        chosen = group.filter(pl.col("bits").is_not_null())
        count = (chosen["rows"] * chosen["columns"]).sum()
        bits = ", ".join(str(value) for value in chosen["bits"].unique().sort()) or "no"
        lines.append(
            f"{component[0]}: {len(chosen)} of {len(group)} layers, {count:,} of {weights:,} weights, {bits} bits"
        )
        for column in ("note", "reason"):
            for (said,), some in group.drop_nulls(column).group_by(column, maintain_order=True):
                lines.append(f"  {len(some)} {'layer' if len(some) == 1 else 'layers'}, {said}")
    return "\n".join(lines)


def thirds_of(layers: list[LayerRef]) -> dict[str, str | None]:
    """Return the third of its component's blocks that each layer lies in, by its name; None outside of blocks."""
    indexed = {(layer.component, layer.block) for layer in layers if layer.block is not None}
    depths = Counter(component for component, _ in indexed)
    return {
        layer.name: None if layer.block is None else THIRDS[3 * layer.block // depths[layer.component]]
        for layer in layers
    }


def layer_row(
    model: nn.Module, layer: LayerRef, third: str | None, selected_by: str | None, reason: str | None
) -> dict[str, Any]:
    """Return what a layer plan says of every layer, quantized or not."""
    rows, *inputs = model.get_submodule(layer.name).weight.shape
    return {
        "layer": layer.name,
        "component": layer.component,
        "block": layer.block,
        "third": third,
        "layer_type": layer.layer_type,
        "rows": rows,
        "columns": prod(inputs),
        "selected_by": selected_by,
        "reason": reason,
    }


def _quantized(
    layer: LayerRef, columns: int, scheme: Scheme, method: Method, selection: Selection, group: ScaleGroup | None
) -> dict[str, str | int | None]:
    """Return what the layer plan says of a layer because it is quantized."""
    size = effective_group_size(columns, scheme.group_size)
    name, notes = method.layer_method(layer, group)
    if scheme.group_size not in (None, size):
        notes = [*notes, f"group {size}: {columns} is no multiple of {scheme.group_size}"]
    return {
        "bits": selection.bits,
        "group": size,
        "method": name,
        "scaled_by": method.scaled_by(group),
        "note": "; ".join(notes) or None,
    }


def _shared(scheme: Scheme, embedding: str) -> dict[str, str | int | None]:
    """Return what a tied head takes over from the embedding."""
    bits = scheme.row_of("embedding").bits
    return {
        "bits": bits,
        "method": None,
        "scaled_by": None,
        "shares": embedding,
        "note": f"tied: takes the codes of {embedding}, {bits} bits",
    }


def _reason(layer: LayerRef, selection: Selection | None) -> str | None:
    """Return why a layer is skipped, or None."""
    if selection is None:
        return "not selected"
    if layer.kind == "conv":
        return "convolution"
    if layer.kind == "embedding" and layer.component != "embedding":
        return "not a token embedding"
    if layer.component == "language" and layer.block is None:
        return "outside the blocks"
    if selection.bits == UNQUANTIZED_BITS:
        return f"left at {UNQUANTIZED_BITS} bits"
    return None


def _reason_of_tied(scheme: Scheme, other: str) -> str | None:
    """Return why a selected layer is skipped that is one tensor with another, or None where both are selected."""
    both = all(row is not None and row.bits != UNQUANTIZED_BITS for row in map(scheme.row_of, ("embedding", "head")))
    return None if both else f"tied to {other}, which is not selected"


def _require_layers(
    family: Family,
    scheme: Scheme,
    selection: Selection,
    plan: pl.DataFrame,
    decided: list[tuple[Selection | None, str | None]],
) -> None:
    """Raise when a row of the table decides about no layer that can be quantized."""
    described = family.components[selection.component]
    may_lack = not described.modules or (selection.component in STACKS and not described.blocks)
    if may_lack and is_scheme_word(scheme.name):
        # a preset means whatever the family has: a connector may be no layer
        return
    reasons = [reason for row, reason in decided if row is selection]
    wanted = f"left at {UNQUANTIZED_BITS} bits" if selection.bits == UNQUANTIZED_BITS else None
    if wanted in reasons:
        return
    if reasons:
        why = "; ".join(sorted(set(reasons)))
    elif selection.component in plan["component"]:
        why = "later rows of the table take all of its layers, or there are too few blocks for its third"
    else:
        why = "the model has no such layer"
    raise QuantrustError(
        f"scheme {scheme.name}: {selection} selects no layer of this {family.name} model ({why}); "
        "leave the row out or use another preset"
    )
