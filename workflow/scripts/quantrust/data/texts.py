"""Texts and identifiers of data files: every reader takes each of them through the one check here."""

from reprlib import Repr
from typing import Any

from quantrust.errors import QuantrustError
from quantrust.files import has_control

LONGEST_IDENTIFIER = 1000
"""Characters: identifiers stand in messages and logs."""

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


def shown(value: Any) -> str:
    """Return a value of a file as a message shows it: one line, cut where it is long or deep.

    Examples
    --------
    >>> shown({"answer": ["red", None]})
    "{'answer': ['red', None]}"
    """
    return _SHORT.repr(value)


def is_unicode(value: str) -> bool:
    """Return whether a text has no lone surrogate, which JSON can write and no table, terminal or tokenizer can.

    Examples
    --------
    >>> is_unicode("no"), is_unicode(chr(0xD800))
    (True, False)
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def text(value: Any, name: str, where: str) -> str:
    """Return a value that must be a text.

    Parameters
    ----------
    value : object
        From a file; None where the file has nothing.
    name : str
        What the file calls it.
    where : str
        The file and the place in it, for messages.

    Returns
    -------
    str
        The value; possibly empty.

    Raises
    ------
    QuantrustError
        If it is not a string, or has a lone surrogate.
    """
    if not isinstance(value, str):
        raise QuantrustError(f'{where}: expected a string in "{name}", got {shown(value)}')
    if not is_unicode(value):
        raise QuantrustError(f'{where}: "{name}" is {shown(value)}, which has a lone surrogate; expected Unicode text')
    return value


def identifier(value: Any, name: str, where: str) -> str:
    """Return an integer, or a text that can name something in one line, as a string.

    Parameters
    ----------
    value : object
        From a file; None where the file has nothing.
    name : str
        What the file calls it.
    where : str
        The file and the place in it, for messages.

    Raises
    ------
    QuantrustError
        If it is something else, empty, too long or with control characters, or as `text`.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise QuantrustError(f'{where}: expected an integer or a string in "{name}", got {shown(value)}')
    named = text(str(value), name, where)
    if not 0 < len(named) <= LONGEST_IDENTIFIER or has_control(named):
        raise QuantrustError(
            f'{where}: "{name}" is {shown(value)}; expected an identifier of 1 to {LONGEST_IDENTIFIER:,} characters, '
            "none of them a control character"
        )
    return named
