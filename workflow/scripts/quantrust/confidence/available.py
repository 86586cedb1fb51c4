"""Which estimators can read the answers to a task."""

from quantrust.confidence.catalogue import LEARNED, load_estimator, plain_estimators
from quantrust.inference.features_file import features_schema, matches_schema


def available_estimators(matches: bool) -> list[str]:
    """Return the estimators, not calibrated, that find their columns in the features file of a task.

    Parameters
    ----------
    matches : bool
        Whether its answers are found and not written (`quantrust.tasks.task.Task.matches`).
    """
    columns = {*(matches_schema() if matches else features_schema(1)).names}
    plain = [name for name in plain_estimators() if {*load_estimator(name).confidence().meta.root_names()} <= columns]
    return plain if matches else [*plain, *LEARNED]
