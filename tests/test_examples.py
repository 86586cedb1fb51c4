import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module", ["vqa.accuracy", "evaluation.metrics", "evaluation.certification", "evaluation.comparison"]
)
def test_examples_in_docstrings_are_right(module):
    result = doctest.testmod(importlib.import_module(f"quantrust.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
