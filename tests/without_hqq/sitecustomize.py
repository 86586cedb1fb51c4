"""Hides the package hqq from the jobs of a test's study: only the development environment has it.

Where transformers finds hqq, every job that loads a model imports it too, which takes a fifth of all that it imports.
"""

import sys

# Python takes None for a package that is not there.
sys.modules["hqq"] = None  # type: ignore[assignment]
