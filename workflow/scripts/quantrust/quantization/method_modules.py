"""Which modules a method runs: an edit of one method is no reason to quantize anew under another."""

from quantrust.quantization.scheme import Scheme

# AWQ and MBQ search scales and then round to the nearest code.
METHOD_MODULES = {
    "rtn": frozenset({"rtn"}),
    "hqq": frozenset({"hqq"}),
    "awq": frozenset({"awq", "rtn"}),
    "mbq": frozenset({"mbq", "rtn"}),
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
    used = METHOD_MODULES[scheme.method] if scheme.method else frozenset()
    return [f"quantrust.quantization.{name}" for name in sorted(every - used)]
