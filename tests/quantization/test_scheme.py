"""Scheme names: what parses, what it means, what is refused and how."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import quantrust
from quantrust.errors import QuantrustError
from quantrust.quantization.scheme import COMPONENTS, format_scheme, parse_scheme


@pytest.mark.parametrize(
    ("name", "method", "group_size", "symmetric", "bits"),
    [
        ("bf16", None, None, False, {}),
        ("rtn-w4g64", "rtn", 64, False, {"language": 4}),
        ("rtn-w4g64s", "rtn", 64, True, {"language": 4}),
        ("awq-w5c", "awq", None, False, {"language": 5}),
        ("hqq-w3g64-full", "hqq", 64, False, dict.fromkeys(COMPONENTS, 3)),
        (
            "mbq-w2cs-mixed",
            "mbq",
            None,
            True,
            {"vision": 8, "connector": 8, "language": 2, "embedding": 8, "head": 8},
        ),
    ],
)
def test_names_mean_what_they_say(name, method, group_size, symmetric, bits):
    scheme = parse_scheme(name)
    assert (scheme.method, scheme.group_size, scheme.symmetric) == (method, group_size, symmetric)
    assert {component: scheme.component_bits(component) for component in COMPONENTS} == {
        component: bits.get(component) for component in COMPONENTS
    }
    assert scheme.name == name


def test_format_is_the_inverse_of_parse():
    for method, group_size, symmetric, preset in [
        ("mbq", 128, False, ""),
        ("rtn", None, True, "-mixed"),
        ("hqq", 32, False, "-full"),
    ]:
        name = format_scheme(method, 6, group_size, symmetric, preset)
        scheme = parse_scheme(name)
        assert (scheme.name, scheme.method, scheme.group_size, scheme.symmetric) == (
            name,
            method,
            group_size,
            symmetric,
        )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gptx-w4g64", "method 'gptx' does not exist; allowed: rtn, hqq, awq, mbq"),
        ("rtn-w7g64", "bits 7 does not exist; allowed: 2, 3, 4, 5, 6, 8"),
        ("rtn-w4g48", "group size 48 does not exist; allowed: 16, 32, 64, 128"),
        ("rtn-w4g64-half", "preset '-half' does not exist; allowed: none, -mixed, -full"),
        ("hqq-w4g64s", "hqq has a free zero-point"),
        ("rtn-w4", "does not parse"),
        ("rtn-w04g64", "does not parse"),
        ("int4", "does not parse"),
        ("", "does not parse"),
        ("rtn-w4g64 ", "does not parse"),
    ],
)
def test_wrong_names_are_refused_with_what_is_allowed(name, message):
    with pytest.raises(QuantrustError, match=message) as caught:
        parse_scheme(name)
    assert repr(name) in str(caught.value)


def test_reading_a_name_needs_no_torch():
    code = "import sys, quantrust.quantization.scheme; sys.exit('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(Path(quantrust.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
