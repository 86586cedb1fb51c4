"""The job of a cell of a grid, which imports what runs a model only if the cell is not made yet."""

from collections.abc import Callable, Iterable

from quantrust.inference.cells import Cell, take


def answer_cell(cell: Cell, others: Callable[[], Iterable[Cell]], workers: int, activation_bytes: int | None) -> None:
    """Put the files of a cell in their places; unless it waits, make it first, and others with it.

    Parameters
    ----------
    cell : Cell
    others, workers, activation_bytes
        As `quantrust.inference.sweep.make_cells` takes them.

    Raises
    ------
    QuantrustError
        As `make_cells` does.
    """
    key = cell.key()
    if take(cell, key):
        return
    # what makes a cell takes seconds to import
    from quantrust.inference.sweep import make_cells

    make_cells(cell, others, workers=workers, activation_bytes=activation_bytes)
    take(cell, key)
