"""Which modules a method runs: an edit of one method is no reason to quantize anew under another.

A method that is found by its name is imported by nothing; whoever runs it carries its digest.
"""

from quantrust.named_modules import DATA_FREE_METHODS, module_names
from quantrust.quantization.scheme import Scheme

_CALIBRATED = {"calibration", "rtn"}
_SCALED = _CALIBRATED | {"scale_search", "folding"}

# The methods that calibrate go on to the nearest code, or start from its grid.
METHOD_MODULES = {
    "rtn": frozenset({"rtn"}),
    "awq": frozenset({"awq", *_SCALED}),
    "mbq": frozenset({"mbq", *_SCALED}),
    "gptq": frozenset({"gptq", "sequential", *_CALIBRATED}),
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
    return f"{DATA_FREE_METHODS}.{scheme.method}" if scheme.method in module_names(DATA_FREE_METHODS) else None
