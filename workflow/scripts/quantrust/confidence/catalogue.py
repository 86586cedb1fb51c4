"""The catalogue of confidence estimators: those that need no training, found as modules, and the learned ones."""

from collections.abc import Collection, Iterable, Sequence
from types import ModuleType

from quantrust.errors import QuantrustError
from quantrust.named_modules import ESTIMATORS, declared, load_module, module_names

LEARNED = ("selector", "selector-ensemble", "selector-residual")
"""Columns of `quantrust.confidence.selector.selector_confidence`; probabilities."""
SHIPPED = ("entropy", "length-normalised", "margin", "match-margin", "maxprob", "min-token")
"""Those without training that come with this project; any other module is an estimator of one's own."""
COMPARED = ("maxprob", "selector")
"""The two that a study of reliability sets against each other."""

OF_ONE_NETWORK = ("selector", "selector-residual")
"""Those of them that are the first of several networks, trained alike but for their seeds: the members."""


def plain_estimators() -> list[str]:
    """Return the names of the estimators that need no training."""
    return [name.replace("_", "-") for name in module_names(ESTIMATORS)]


def main_estimators(names: Sequence[str]) -> list[str]:
    """Return the estimators that a report is about if the config does not name any.

    Parameters
    ----------
    names : sequence of str
        Estimators that exist, calibrated ones included.

    Returns
    -------
    list of str
        Of `names`, in their order, `COMPARED` and one's own, calibrated or not; all where there is none of these.
    """
    known = {*SHIPPED, *LEARNED}
    chosen = [name for name in names if name in COMPARED or name.split("+")[0] not in known]
    return chosen or list(names)


def has_learned(names: Iterable[str]) -> bool:
    """Return whether any of these estimators, calibrated or not, is trained."""
    return any(name.split("+")[0] in LEARNED for name in names)


def estimator_module(name: str) -> str:
    """Return the dotted name of the module of an estimator that needs no training."""
    return f"{ESTIMATORS}.{name.replace('-', '_')}"


def is_probability(name: str) -> bool:
    """Return whether the confidence of an estimator, calibrated or not, is meant as a probability.

    So it is of every column of a table of scores but those of estimators that say it is none.
    """
    plain = name.split("+")[0]
    return plain not in plain_estimators() or _says_probability(plain)


def member_name(estimator: str, member: int) -> str:
    """Return the column of a member of an estimator; that of the first is the estimator's own.

    Parameters
    ----------
    estimator : str
        A name, calibrated or not.
    member : int
        From 0 on.

    Examples
    --------
    >>> member_name("selector", 0), member_name("selector", 1), member_name("selector+platt", 4)
    ('selector', 'selector@2', 'selector@5+platt')
    """
    plain, plus, calibration = estimator.partition("+")
    return estimator if member == 0 else f"{plain}@{member + 1}{plus}{calibration}"


def member_columns(columns: Collection[str], estimator: str) -> list[str]:
    """Return the columns of a scores table that hold an estimator's members, its own first.

    Parameters
    ----------
    columns : collection of str
        All of the table.
    estimator : str

    Examples
    --------
    >>> member_columns(["quality", "selector", "selector@2", "selector@3"], "selector")
    ['selector', 'selector@2', 'selector@3']
    """
    found = [estimator]
    while (name := member_name(estimator, len(found))) in columns:
        found.append(name)
    return found


def is_member(column: str) -> bool:
    """Return whether a column holds a further member of an estimator, and not an estimator."""
    return "@" in column


def check_estimator(name: str) -> None:
    """Raise a `QuantrustError` unless there is an estimator of this name, and it can be calibrated if it is to be.

    Parameters
    ----------
    name : str
        An estimator's name, with ``+<calibration>`` at the end where it is calibrated.
    """
    plain, _, calibration = name.partition("+")
    known = [*plain_estimators(), *LEARNED]
    if plain not in known:
        raise QuantrustError(f"no estimator of this name; allowed: {', '.join(known)}, or one of them +<calibration>")
    if calibration and plain not in LEARNED and not _says_probability(plain):
        raise QuantrustError(f"{plain} is not a probability and cannot be calibrated; allowed: {plain}")


def _says_probability(name: str) -> bool:
    """Return what the source of an estimator says; it is not run, because the check of a config needs no polars."""
    said = declared(ESTIMATORS, name.replace("-", "_"), "IS_PROBABILITY", default=None)
    return bool(load_estimator(name).IS_PROBABILITY if said is None else said)


def load_estimator(name: str) -> ModuleType:
    """Return the module of an estimator that needs no training."""
    return load_module(ESTIMATORS, name.replace("-", "_"), ("confidence", "IS_PROBABILITY"))
