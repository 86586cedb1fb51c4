"""What figures, tables and the page say alike: how percentages and thresholds are written, and what is significant.

The words for an item and for the quality of an answer are those of the task of the ID dataset: a study of captions has
no questions and no accuracy. Whoever makes something of a report says first what it speaks of (`speaking_of`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

from quantrust.evaluation.limits import as_given
from quantrust.evaluation.metric_records import metric_named
from quantrust.report.item_words import PICTURE, USUAL, Words

SHOWN_DIGITS = 4
"""Significant digits of a threshold where it is shown rounded."""
NEAR_ONE, WRITTEN_OUT = Decimal("0.99"), Decimal("0.0001")
"""From where on a threshold has the digits of its distance from 1, and below which distance that is written out."""
SIGNIFICANT = 0.05
"""The corrected p-value below which a difference is called one."""


_words: ContextVar[Words] = ContextVar("words", default=USUAL)


@contextmanager
def speaking_of(words: Words) -> Iterator[None]:
    """Say what items and quality are called by all that is written until the context ends."""
    token = _words.set(words)
    try:
        yield
    finally:
        _words.reset(token)


def item() -> str:
    """Return what one item is called."""
    return _words.get().item


def items() -> str:
    """Return what items are called.

    Examples
    --------
    >>> items()
    'questions'
    """
    return _words.get().items


def counted(count: int) -> str:
    """Return so many items.

    Examples
    --------
    >>> counted(1), counted(2100)
    ('1 question', '2,100 questions')
    """
    return f"{count:,} {item() if count == 1 else items()}"


def quality_name() -> str:
    """Return what the mean quality of answers is called inside a sentence."""
    return _words.get().quality


def counted_about(count: int, images: int) -> str:
    """Return so many items about so many images; where an item is an image, so many of them.

    Examples
    --------
    >>> counted_about(2100, 30)
    '2,100 questions about 30 images'
    >>> with speaking_of(Words(PICTURE, "pictures")):
    ...     counted_about(30, 30)
    '30 pictures'
    """
    return counted(count) if item() == PICTURE else f"{counted(count)} about {images:,} images"


def items_about(images: str) -> str:
    """Say that items are about so many images; where an item is an image, that there are so many of them.

    Examples
    --------
    >>> items_about("30")
    'questions about 30 images'
    >>> with speaking_of(Words(PICTURE, "pictures")):
    ...     items_about("30")
    '30 pictures'
    """
    return f"{images} {items()}" if item() == PICTURE else f"{items()} about {images} images"


def drawn(between: str) -> str:
    """Return what is drawn from a distribution: pictures, and what is asked about them where that differs.

    Examples
    --------
    >>> drawn("and")
    'pictures and questions'
    >>> with speaking_of(Words(PICTURE, "pictures")):
    ...     drawn("and")
    'pictures'
    """
    return items() if item() == PICTURE else f"pictures {between} {items()}"


def one_decimal(share: float) -> str:
    """Return a measured share in percent as the papers' tables print it.

    Examples
    --------
    >>> one_decimal(0.825), one_decimal(1.0)
    ('82.5', '100.0')
    """
    return f"{100 * share:.1f}"


def with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """Return a measured share in percent with its interval, `none` where it is undefined.

    Examples
    --------
    >>> with_interval(0.0219, 0.0146, 0.0285), with_interval(None, None, None)
    ('2.2 % (1.5 to 2.9)', 'none')
    """
    if value is None or low is None or high is None:
        return "none"
    return f"{one_decimal(value)} % ({one_decimal(low)} to {one_decimal(high)})"


def signed(difference: float) -> str:
    """Return a difference of fractions in percentage points with its sign, and none where it is zero as shown.

    Examples
    --------
    >>> signed(0.0104), signed(-0.0004)
    ('+1.0', '0.0')
    >>> signed(-0.061) == "\N{MINUS SIGN}6.1"
    True
    """
    text = f"{100 * difference:+z.1f}"
    return "0.0" if text == "+0.0" else text.replace("-", "\N{MINUS SIGN}")


def in_words(share: float) -> str:
    """Return a share as a percentage with no more decimals than it has.

    Examples
    --------
    >>> in_words(0.05), in_words(0.005)
    ('5 %', '0.5 %')
    """
    return f"{round(100 * share, 6):g} %"


def metric_label(name: str, parameter: float | None = None) -> str:
    """Return how headings write a metric at its risk limit or cost.

    Examples
    --------
    >>> metric_label("ece"), metric_label("coverage_at_risk", 0.01), metric_label("effective_reliability", 10.0)
    ('ECE', 'C@1 %', 'Φ10')
    """
    metric = metric_named(name)
    if name == "accuracy":
        return quality_name()[:1].upper() + quality_name()[1:]
    if parameter is None:
        return metric.label
    return metric.label.format(in_words(parameter) if metric.parameter == "risk" else as_given(parameter))


def threshold_in_words(threshold: float | None, digits: int = SHOWN_DIGITS) -> str:
    """Return a threshold rounded up, so that the text answers no question that the threshold does not.

    Near 1 the digits are those of the distance from 1, which is written out where it is small: the text of a threshold
    below 1 is never 1.

    Parameters
    ----------
    threshold : float or None
        Finite; None where there is none.
    digits : int
        Significant digits, at least 2; half as many of the distance from 1.

    Examples
    --------
    >>> threshold_in_words(0.93121), threshold_in_words(0.998761), threshold_in_words(1 - 3.14e-7)
    ('0.9313', '0.9988', '1 - 3.1e-7')
    >>> threshold_in_words(3.2e-8), threshold_in_words(-2.71828), threshold_in_words(None)
    ('3.2e-8', '-2.718', 'none')
    """
    if threshold is None:
        return "none"
    # The shortest decimal that reads back to the float, not the float's exact value, which may be a hair above it.
    exact = Decimal(repr(threshold))
    if not NEAR_ONE <= exact < 1:
        return _written(Context(prec=digits, rounding=ROUND_CEILING).plus(exact))
    distance = Context(prec=digits - digits // 2, rounding=ROUND_FLOOR).plus(1 - exact)
    return f"1 - {_written(distance)}" if distance < WRITTEN_OUT else _written(1 - distance)


def told_apart(confidence: float, threshold: float | None) -> tuple[str, str]:
    """Return a confidence and the threshold that it is held against with as many digits as tell them apart.

    Examples
    --------
    >>> told_apart(0.93124, 0.93121), told_apart(0.5, 0.93121), told_apart(0.25, 0.25)
    (('0.93124', '0.93121'), ('0.5', '0.9313'), ('0.25', '0.25'))
    """
    digits = SHOWN_DIGITS
    while True:
        texts = threshold_in_words(confidence, digits), threshold_in_words(threshold, digits)
        if texts[0] != texts[1] or confidence == threshold or threshold is None:
            return texts
        # Ends: so many digits as a float has tell any two apart.
        digits += 1


def _written(number: Decimal) -> str:
    """Return a decimal number as Python and JavaScript read it, without trailing zeros."""
    number = number.normalize()
    if number == 0 or -4 <= number.adjusted() < 16:
        return f"{number:f}"
    return f"{number:e}".replace("e+", "e")
