"""Small tables that a user brings, CSV or Parquet: identifiers and texts by named columns, every cell checked."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from quantrust.artifacts.tables import read_others_table
from quantrust.data.texts import shown
from quantrust.errors import QuantrustError

TEXT_TYPES = (pl.String, pl.Categorical, pl.Enum)
FORMS = (".csv", ".parquet")


def read_user_table(path: str | Path, what: str, expected: str) -> pl.DataFrame:
    """Read a table of a user as it is; of a CSV file every column is text.

    Parameters
    ----------
    path : str or Path
        It ends in one of `FORMS`.
    what : str
        What the file should be, for messages: "a split file".
    expected : str
        The columns that it should have, for messages.

    Raises
    ------
    QuantrustError
        If it is missing or cannot be read.
    """
    try:
        if Path(path).suffix.lower() == ".parquet":
            return read_others_table(path)
        return pl.read_csv(path, infer_schema=False, glob=False)
    except FileNotFoundError:
        raise QuantrustError(f"{path}: no such file; expected {what}") from None
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        raise QuantrustError(f"{path}: cannot be read as a table ({reason}); expected {expected}") from None


def text_columns(table: pl.DataFrame, path: str | Path, columns: Sequence[str], expected: str) -> pl.DataFrame:
    """Return columns of a user's table as strings.

    Parameters
    ----------
    table : polars.DataFrame
    path : str or Path
        Where it is from, for messages.
    columns : sequence of str
    expected : str
        The columns that it should have, for messages.

    Raises
    ------
    QuantrustError
        If a column is missing, or is neither of integers nor of strings.
    """
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise QuantrustError(f"{path}: has no column {missing[0]}, only {shown(table.columns)}; expected {expected}")
    table = table.select(columns)
    for name, dtype in table.schema.items():
        if not dtype.is_integer() and dtype not in TEXT_TYPES:
            raise QuantrustError(f"{path}: has {name} of the type {dtype}; expected integers or strings")
    return table.cast(pl.String)
