"""Which modules a method runs: an edit of one method is no reason to quantize anew under another.

A method that is found by its name is imported by nothing; whoever runs it carries its digest.
"""

from quantrust.named_modules import METHODS
from quantrust.quantization.scheme import BUILT_IN_METHODS, Scheme

_CALIBRATED = {"calibration_samples", "methods.rtn"}
_SCALED = _CALIBRATED | {"scale_search", "folding"}

# The methods that calibrate go on to the nearest code, or start from its grid.
METHOD_MODULES = {
    "rtn": frozenset({"methods.rtn"}),
    "awq": frozenset({"methods.awq", *_SCALED}),
    "mbq": frozenset({"methods.mbq", *_SCALED}),
    "gptq": frozenset({"methods.gptq", "sequential", *_CALIBRATED}),
}


def modules_not_run(scheme: Scheme) -> list[str]:
    """Return the modules of methods, named with dots, of which quantizing under a scheme runs nothing.

    Parameters
    ----------
    scheme : Scheme

    Returns
    -------
    list of str
        Sorted; all of them for the unquantized scheme.
    """
    every = frozenset().union(*METHOD_MODULES.values())
    used = METHOD_MODULES.get(scheme.method, frozenset())
    return [f"quantrust.quantization.{name}" for name in sorted(every - used)]


def module_found(scheme: Scheme) -> str | None:
    """Return the dotted name of the module of a method that is found by its name; None for the built-in ones."""
    return None if scheme.method in (None, *BUILT_IN_METHODS) else f"{METHODS}.{scheme.method}"
