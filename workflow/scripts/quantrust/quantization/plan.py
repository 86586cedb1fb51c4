"""The plan: which layers a scheme quantizes, how, and why not the others. Made before anything is touched."""

import polars as pl
from torch import nn

from quantrust.errors import QuantrustError
from quantrust.models.family import Family, LayerRef
from quantrust.quantization.grid import effective_group_size
from quantrust.quantization.scheme import Scheme

PLAN_SCHEMA = pl.Schema(
    {
        "layer": pl.String,
        "component": pl.String,
        "block": pl.Int32,
        "layer_type": pl.String,
        "rows": pl.Int64,
        "columns": pl.Int64,
        "bits": pl.Int32,
        "group": pl.Int64,
        "scaled_by": pl.String,
        "shares": pl.String,
        "reason": pl.String,
    }
)
"""Columns of a plan.

`rows` and `columns` are output and input channels (a convolution's kernel counts as input channels). `bits` and
`group` are null for layers that are skipped, and `reason` says why. `scaled_by` is the operation that absorbs the
inverse of a layer's channel scales, null where nothing does and the plain grid is used. `shares` names the layer
whose codes a tied layer uses.
"""


def build_plan(family: Family, model: nn.Module, scheme: Scheme) -> pl.DataFrame:
    """Decide for every layer of a model what a scheme does to it.

    Parameters
    ----------
    family : Family
    model : torch.nn.Module
        Unquantized.
    scheme : Scheme

    Returns
    -------
    polars.DataFrame
        One row per layer, in the order of `family.layers`, with the columns of `PLAN_SCHEMA`.

    Raises
    ------
    QuantrustError
        If the scheme selects a component of which no layer can be quantized.
    """
    layers = family.layers(model)
    absorbers = _absorbers(family, model, scheme) if scheme.needs_calibration else {}
    head, embedding = tied_layers(model, layers)
    both = all(scheme.component_bits(component) is not None for component in ("embedding", "head"))
    rows = []
    for layer in layers:
        weight = model.get_submodule(layer.name).weight
        columns = weight[0].numel()
        bits = scheme.component_bits(layer.component)
        reason = _reason(layer, bits)
        if reason is None and layer.name in (head, embedding) and not both:
            reason = f"tied to {head if layer.name == embedding else embedding}, which is not selected"
        chosen = reason is None
        rows.append(
            {
                "layer": layer.name,
                "component": layer.component,
                "block": layer.block,
                "layer_type": layer.layer_type,
                "rows": weight.shape[0],
                "columns": columns,
                "bits": scheme.component_bits("embedding")
                if chosen and layer.name == head
                else bits
                if chosen
                else None,
                "group": effective_group_size(columns, scheme.group_size) if chosen else None,
                "scaled_by": absorbers.get(layer.name) if chosen else None,
                "shares": embedding if chosen and layer.name == head else None,
                "reason": reason,
            }
        )
    plan = pl.DataFrame(rows, schema=PLAN_SCHEMA)
    touched = set(plan.filter(pl.col("bits").is_not_null())["component"])
    for component, bits in scheme.bits:
        if component not in touched:
            reasons = sorted(set(plan.filter(component=component)["reason"])) or ["the model has no such layer"]
            raise QuantrustError(
                f"scheme {scheme.name}: {bits} bits for {component} select no layer of this {family.name} model "
                f"({'; '.join(reasons)}); leave the component out or use another preset"
            )
    return plan


def tied_layers(model: nn.Module, layers: list[LayerRef]) -> tuple[str | None, str | None]:
    """Return the names of head and token embedding if they are one tensor, else two times None."""
    heads = [layer.name for layer in layers if layer.component == "head"]
    embeddings = [layer.name for layer in layers if layer.component == "embedding"]
    for head in heads:
        for embedding in embeddings:
            if model.get_submodule(head).weight is model.get_submodule(embedding).weight:
                return head, embedding
    return None, None


def describe_plan(plan: pl.DataFrame) -> str:
    """Return one line a component: layers and weights that are quantized, and the bits."""
    lines = []
    for component, group in plan.group_by("component", maintain_order=True):
        weights = (group["rows"] * group["columns"]).sum()
        chosen = group.filter(pl.col("bits").is_not_null())
        count = (chosen["rows"] * chosen["columns"]).sum()
        bits = ", ".join(str(value) for value in chosen["bits"].unique().sort()) or "no"
        lines.append(
            f"{component[0]}: {len(chosen)} of {len(group)} layers, {count:,} of {weights:,} weights, {bits} bits"
        )
    return "\n".join(lines)


def _reason(layer: LayerRef, bits: int | None) -> str | None:
    """Return why a layer is skipped, or None."""
    if bits is None:
        return "component not selected"
    if layer.kind == "conv":
        return "convolution"
    if layer.kind == "embedding" and layer.component != "embedding":
        return "not a token embedding"
    if layer.component == "language" and layer.block is None:
        return "outside the blocks"
    return None


def _absorbers(family: Family, model: nn.Module, scheme: Scheme) -> dict[str, str | None]:
    return {
        linear: group.previous
        for component, _ in scheme.bits
        for block in family.blocks(model, component)
        for group in family.scale_groups(model, block)
        for linear in group.linears
    }
