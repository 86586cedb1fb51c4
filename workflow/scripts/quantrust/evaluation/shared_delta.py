"""Certificates that hold together: one delta for every scheme, estimator and risk limit that a user may choose among.

A certificate of `quantrust.evaluation.certification.certify` may fail with probability delta. Whoever looks at several
certificates and ships the best one fails more often: the choice was made on the same answers. Here, the probability
that *any* of the certificates fails is at most delta, so that every choice among them keeps the promise, for whatever
reason it was made. What can be chosen has to be declared before the answers are looked at.

The derivation has two steps. Write H(s, e, R, t) for the null hypothesis that scheme s, answering where the confidence
of estimator e is at least t, has a risk above R.

1. *Schemes and estimators* get equal shares: of S schemes and E estimators each pair has delta / (S E). The probability
   that any pair fails is at most the sum of the shares (Bonferroni), however the answers of the schemes depend on each
   other. A pair can be certified without the answers of the others.
2. *Risk limits* of a pair have a sequence of candidate thresholds each, in an order fixed on val, and begin with equal
   parts of the pair's share. Each walks down its candidates and stops at the first that is not rejected at its part:
   fixed sequence testing. A limit whose candidates are all rejected, or that has none, needs its part no longer. It
   hands it on to the next limit in the list, the first following the last, that is not through. That limit walks on.

That step 2 fails with at most the pair's share: call a limit *faulty* if some candidate of its sequence is a true null
hypothesis, and look at the first certificate that is wrong. Until then no true null hypothesis was rejected, so no
faulty limit came to the end of its sequence, and every part still belongs to the limit that it began with, or was
handed on by limits that are not faulty. A part that is handed on goes to the next limit that is not through, so it does
not pass a faulty one. The faulty limits therefore own disjoint parts, each at most what it began with and what the
limits between it and the faulty one before it began with. These bounds do not depend on the answers, and they add up to
the share at most. A wrong certificate means that the first true null hypothesis of a faulty limit had a p-value below
what the limit owns. This has at most the probability of its bound, and all together at most that of the share.

Sources: Angelopoulos et al., "Learn then Test: Calibrating Predictive Algorithms to Achieve Risk Control" (Annals of
Applied Statistics 2025), on fixed sequence testing and on sequential graphical testing, of which step 2 is a case;
Maurer, Hothorn and Lehmacher, "Multiple comparisons in drug clinical trials and preclinical assays: a-priori ordered
hypotheses" (1995), for fixed sequences; Wiens, "A fixed sequence Bonferroni procedure for testing multiple endpoints"
(Pharmaceutical Statistics 2003), for parts that are handed on; Bretz et al., "A graphical approach to sequentially
rejective multiple test procedures" (Statistics in Medicine 2009), for hypotheses on a graph.

The delta is that of one model. Models are not among what is declared: whoever chooses between m models by their
certificates has to take m times the delta.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quantrust.evaluation.certification import candidate_thresholds, fewest_faultless, p_values
from quantrust.evaluation.metrics import Floats, Ranking


@dataclass(frozen=True)
class Certificate:
    """What became of a risk limit.

    Attributes
    ----------
    risk_limit : float
    threshold : float or None
        The lowest certified threshold; None where none was certified.
    delta : float
        The part of delta that the limit was tested with in the end.
    fewest : int
        The least number of answers, all faultless, that a certificate takes with this part.
    """

    risk_limit: float
    threshold: float | None
    delta: float
    fewest: int


def share_of_each(delta: float, schemes: int, estimators: int) -> float:
    """Return the part of delta that a scheme has for the limits of one estimator.

    Parameters
    ----------
    delta : float
        Of all certificates of a model together, in (0, 1).
    schemes, estimators : int
        How many are declared.

    Examples
    --------
    >>> share_of_each(0.1, 2, 1)
    0.05
    """
    return delta / (schemes * estimators)


def candidates_by_limit(val: Ranking, answers: int, risk_limits: Sequence[float], delta: float) -> dict[float, Floats]:
    """Fix the candidates of every limit on val.

    Parameters
    ----------
    val : Ranking
        Val answers. They must not be the certification answers.
    answers : int
        Number of certification answers.
    risk_limits : sequence of float
        In (0, 1), in the order in which parts of delta are handed on.
    delta : float
        What the limits have together.

    Returns
    -------
    dict of float to ndarray of float64
        As `quantrust.evaluation.certification.candidate_thresholds` returns them; empty for a limit for which there are
        too few answers.
    """
    part = delta / len(risk_limits)
    return {risk: candidate_thresholds(val, answers, risk, part) for risk in risk_limits}


def certify_limits(answers: Ranking, candidates: Mapping[float, Floats], delta: float) -> list[Certificate]:
    """Certify thresholds for several risk limits so that all certificates hold, except with probability delta.

    Parameters
    ----------
    answers : Ranking
        Independent answers, one question an image, that nothing else used.
    candidates : mapping of float to ndarray of float64, shape (k,)
        For each limit the thresholds to test, in this order, which was fixed without the answers. The order of the
        limits is that in which parts of delta are handed on.
    delta : float
        What the limits have together, in (0, 1).

    Returns
    -------
    list of Certificate
        One for each limit, in their order.

    Examples
    --------
    25 faultless answers are too few for half of delta. The second limit has no candidates and hands its half on:

    >>> from quantrust.evaluation.metrics import rank
    >>> answers = rank(np.ones(25), np.linspace(0.0, 1.0, 25))
    >>> loose, strict = certify_limits(answers, {0.1: np.array([0.0]), 0.001: np.empty(0)}, delta=0.1)
    >>> loose.threshold, loose.delta, loose.fewest, strict.threshold
    (0.0, 0.1, 22, None)
    """
    tested = {risk: p_values(answers, thresholds, risk) for risk, thresholds in candidates.items()}
    passed, parts = walk_together(tested, delta)
    return [
        Certificate(
            risk,
            float(thresholds[passed[risk] - 1]) if passed[risk] else None,
            parts[risk],
            fewest_faultless(risk, parts[risk]),
        )
        for risk, thresholds in candidates.items()
    ]


def walk_together(
    tested: Mapping[float, NDArray[np.float64]], delta: float
) -> tuple[dict[float, int], dict[float, float]]:
    """Walk down the candidates of every limit, and hand parts of delta on from limits that are through.

    Parameters
    ----------
    tested : mapping of float to ndarray of float64, shape (k,)
        The p-values of each limit's candidates, in their order.
    delta : float

    Returns
    -------
    passed : dict of float to int
        How many candidates of each limit are rejected before the first that is not.
    parts : dict of float to float
        The part of delta that each limit was tested with in the end.

    Examples
    --------
    >>> walk_together({0.2: np.array([0.01, 0.02]), 0.1: np.array([0.04, 0.06])}, delta=0.05)
    ({0.2: 2, 0.1: 1}, {0.2: 0.025, 0.1: 0.05})
    """
    limits = list(tested)
    parts = dict.fromkeys(limits, delta / len(limits))
    waiting = limits
    while True:
        passed = {risk: _rejected_first(tested[risk], parts[risk]) for risk in limits}
        through = [risk for risk in waiting if passed[risk] == tested[risk].size]
        waiting = [risk for risk in waiting if risk not in through]
        if not (through and waiting):
            return passed, parts
        for risk in through:
            parts[_next(risk, limits, waiting)] += parts[risk]


def _rejected_first(p_values: NDArray[np.float64], level: float) -> int:
    rejected = p_values <= level
    return int(rejected.size if rejected.all() else np.argmin(rejected))


def _next(risk: float, limits: Sequence[float], waiting: Sequence[float]) -> float:
    """Return the first limit behind one, in a circle, that is not through."""
    place = limits.index(risk)
    return next(other for other in (*limits[place:], *limits[:place]) if other in waiting)
