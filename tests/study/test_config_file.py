"""A config file is read as Snakemake reads it, or refused in one line that names it."""

from pathlib import Path

import pytest
from snakemake.common.configfile import load_configfile

from quantrust.errors import QuantrustError
from quantrust.study.config_file import read_config_file


def repeated(levels: int, first: str, level: str) -> bytes:
    """Return a file in which every level repeats the one before several times, by an alias."""
    lines = [f"k0: &k0 {first}", *(f"k{n}: &k{n} {level}".replace("*", f"*k{n - 1}") for n in range(1, levels))]
    return "\n".join(lines).encode()


FAULTS = {
    "UTF-16": ("seed: 1".encode("utf-16"), "is not UTF-8 text at byte 0; save it as UTF-8"),
    "Latin-1": ("seed: 1 # é".encode("latin-1"), "is not UTF-8 text at byte 10; save it as UTF-8"),
    "empty": (b"# nothing\n", "holds nothing; expected a map of config keys"),
    "a list": (b"- 1\n", "holds a list; expected a map of config keys"),
    "a number": (b"3", "holds int; expected a map of config keys"),
    "open": (b"a: [", "cannot be read as YAML (while parsing a flow node"),
    "two documents": (b"seed: 1\n---\nseed: 2\n", "cannot be read as YAML (expected a single document"),
    "code": (b"seed: !!python/name:os.system", "cannot be read as YAML (could not determine a constructor"),
    "a number of 5,000 digits": (b"seed: " + b"1" * 5000, "cannot be read as YAML (Exceeds the limit"),
    "deep": (b"[" * 100_000, "is nested too deeply; expected at most 40 maps and lists in one another"),
    "deep by aliases": (repeated(60, "[x]", "[*]"), "line 39: is nested too deeply; expected at most 40 maps and"),
    "a list of itself": (
        b"study:\n  models: &all [a, *all]\n",
        "line 2: an alias in this part stands for the part itself",
    ),
    "a map of itself": (b"study: &all {models: *all}", "line 1: an alias in this part stands for the part itself"),
    "a map merged with itself": (b"study: &all {<<: *all}", "line 1: an alias in this part stands for the part itself"),
    "a billion texts": (
        repeated(9, "[x, x]", "[*, *, *, *, *, *, *, *, *, *]"),
        "line 6: has more than 100,000 values",
    ),
    "maps merged a billion times": (repeated(9, "{a: 1}", "{<<: [*, *, *, *, *, *, *, *, *, *]}"), "line 6: has more"),
    "a key twice": (b"study:\n  models: [a]\n  'models': [b]\n", "line 3 gives models again, after line 2; take one"),
    "a key twice in JSON": (
        b'{"study": {"models": [], "models": []}}',
        "has the key models twice in one map; take one",
    ),
}


@pytest.mark.parametrize(("content", "message"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_file_is_named_with_its_fault(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(QuantrustError) as caught:
        read_config_file(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_device_is_refused_and_not_read() -> None:
    with pytest.raises(QuantrustError, match="/dev/zero: is a device or a socket; expected a config"):
        read_config_file("/dev/zero")


@pytest.mark.parametrize(
    "content",
    [
        "seed: 1\nselector: {learning_rate: 1e-4, dropout: 1.0e-1}\n",
        '{"seed": 1,\t"selector": {"learning_rate": 1e-4}}',
        "own: &own {a: 1, b: 2}\nother: {<<: *own, b: 3}\nmore: [*own, *own]\n",
        "\ufeffseed: 1\n",
    ],
    ids=["YAML", "JSON", "aliases", "byte order mark"],
)
def test_what_snakemake_reads_is_read_alike(tmp_path: Path, content: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(content, encoding="utf-8")
    assert read_config_file(path) == load_configfile(path)
