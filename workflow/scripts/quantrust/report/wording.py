"""What figures and tables say alike: how a percentage is written, and which differences are called significant."""

SIGNIFICANT = 0.05
"""The corrected p-value below which a difference is called one."""


def one_decimal(share: float) -> str:
    """Return a measured share in percent as the papers' tables print it.

    Examples
    --------
    >>> one_decimal(0.825), one_decimal(1.0)
    ('82.5', '100.0')
    """
    return f"{100 * share:.1f}"


def in_words(share: float) -> str:
    """Return a share as a percentage with no more decimals than it has.

    Examples
    --------
    >>> in_words(0.05), in_words(0.005)
    ('5 %', '0.5 %')
    """
    return f"{round(100 * share, 6):g} %"
