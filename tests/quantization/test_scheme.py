"""Scheme names: what parses, what it means, what is refused and how."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import quantrust
from quantrust.errors import QuantrustError
from quantrust.quantization.scheme import COMPONENTS, format_scheme, parse_scheme, resolve_scheme


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
        ("gptx-w4g64", "method 'gptx' does not exist; allowed: awq, gptq, hqq, mbq, rtn"),
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


TABLE = {
    "method": "mbq",
    "group": "channel",
    "symmetric": False,
    "table": [
        {"component": "language", "bits": 3},
        {"component": "language", "third": "last", "bits": 4},
        {"component": "language", "third": "last", "layer_type": "mlp", "bits": 16},
        {"component": "head", "bits": 8},
    ],
}


def test_the_last_row_that_applies_decides():
    scheme = resolve_scheme("kept-end", TABLE)
    assert (scheme.name, scheme.method, scheme.group_size, scheme.error) == ("kept-end", "mbq", None, "mae")
    for third, layer_type, bits in [
        ("first", "mlp", 3),
        ("middle", "attention", 3),
        ("last", "attention", 4),
        ("last", "mlp", 16),
    ]:
        assert scheme.row_of("language", third, layer_type).bits == bits
    assert scheme.row_of("vision", "first", "mlp") is None
    assert scheme.components == ("language", "head")
    assert scheme.component_bits("language") is None and scheme.component_bits("head") == 8


def test_a_search_minimises_what_its_method_or_its_definition_says():
    assert [parse_scheme(f"{method}-w4g64").error for method in ("awq", "mbq", "gptq", "hqq")] == [
        "mse",
        "mae",
        None,
        None,
    ]
    assert resolve_scheme("x", TABLE | {"error": "mse"}).error == "mse"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("rtn-w4g64", {}, r"schemes\.rtn-w4g64 is a name with a meaning of its own .* choose another word"),
        ("bf16", {}, r"schemes\.bf16 is a name with a meaning of its own"),
        ("x", {"method": "gptx"}, r"schemes\.x\.method is 'gptx'; allowed: awq, gptq, hqq, mbq, rtn"),
        ("x", {"group": 48}, r"schemes\.x\.group is 48; allowed: 16, 32, 64, 128, channel"),
        ("x", {"method": "hqq", "symmetric": True}, r"schemes\.x\.symmetric is true, but hqq has a free zero-point"),
        (
            "x",
            {"method": "gptq", "error": "mae"},
            r"schemes\.x\.error is 'mae', but gptq searches no scales; .* awq or",
        ),
        ("x", {"error": "max"}, r"schemes\.x\.error is 'max'; allowed: mae, mse"),
        (
            "x",
            {"table": [{"component": "language", "bits": 4}, {"component": "text", "bits": 4}]},
            r"schemes\.x\.table\[1\]\.component is 'text'; allowed: vision, connector, language",
        ),
        ("x", {"table": [{"component": "head", "bits": 7}]}, r"table\[0\]\.bits is 7; allowed: 2, 3, 4, 5, 6, 8, 16"),
        (
            "x",
            {"table": [{"component": "vision", "bits": 4, "third": "2nd"}]},
            r"table\[0\]\.third is '2nd'; allowed: first, middle, last",
        ),
        (
            "x",
            {"table": [{"component": "vision", "bits": 4, "layer_type": "conv"}]},
            r"table\[0\]\.layer_type is 'conv'; allowed: attention, self_attention, cross_attention, mlp",
        ),
        (
            "x",
            {"table": [{"component": "language", "bits": 4, "layer_type": "cross_attention"}]},
            r"table\[0\]\.layer_type is 'cross_attention', but blocks of language have one attention; write attention",
        ),
        (
            "x",
            {"table": [{"component": "embedding", "bits": 4, "third": "last"}]},
            r"table\[0\]\.third is 'last', but embedding has no blocks; leave it out, or select vision or connector or",
        ),
        ("x", {"table": [{"component": "head", "bits": 16}]}, r"schemes\.x\.table quantizes nothing"),
    ],
)
def test_tables_that_contradict_themselves_are_refused_by_key(name, change, message):
    with pytest.raises(QuantrustError, match=message):
        resolve_scheme(name, TABLE | change)
