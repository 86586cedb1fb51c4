"""The connector of two linears with GELU between them."""

from quantrust.models.components import Blocks, GroupRule


def projector(path: str) -> Blocks:
    """Return the description of the connector with this dotted name."""
    return Blocks(
        path,
        {"linear_1": "mlp", "linear_2": "mlp"},
        # what the projector reads comes from no norm, and GELU does not pass a scale on
        (GroupRule(None, (".linear_1",), "mlp"), GroupRule(None, (".linear_2",), "mlp")),
        single=True,
    )
