"""Which estimators can read the answers to a task."""

from quantrust.confidence.catalogue import LEARNED, plain_estimators
from quantrust.named_modules import ESTIMATORS, declared


def available_estimators(matches: bool) -> list[str]:
    """Return the estimators, not calibrated, that find their columns in the features file of a task.

    Parameters
    ----------
    matches : bool
        Whether its answers are found and not written (`quantrust.tasks.task.Task.matches`).
    """
    plain = [
        name
        for name in plain_estimators()
        if declared(ESTIMATORS, name.replace("-", "_"), "READS_MATCHES", default=False) == matches
    ]
    return plain if matches else [*plain, *LEARNED]
