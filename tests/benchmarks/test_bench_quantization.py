"""The benchmark of the quantizers at a tiny size: both implementations of every method run, and find the same."""

import json

import pytest

import bench_quantization as bench

BLOCKS, TOKENS = 2, 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model, in which numbers are kept."""
    folder = tmp_path_factory.mktemp("bench")
    bench.write_model(folder / bench.MODEL, "small", BLOCKS)
    return folder


@pytest.fixture
def in_this_process(monkeypatch, folder):
    """Processes of their own would each import all libraries."""

    def run_alone(options, method, implementation, folder):
        figures = bench.work(method, implementation, options.width, options.blocks, options.tokens, folder)
        (folder / f"{method}-{implementation}.json").write_text(json.dumps(figures))

    monkeypatch.setattr(bench, "run_alone", run_alone)


@pytest.mark.parametrize(
    ("method", "found"),
    [
        ("mbq", "exponents equal in 6 of 6 groups, scales within "),
        ("awq", "exponents equal in 6 of 6 groups, scales within "),
        ("gptq", "relative error over plain, 14 layers: mean "),
        # in float16 its scales and zeros have no more error than in the package's float32
        ("hqq", "relative error over plain, 28 layers: mean "),
    ],
)
def test_both_implementations_find_the_same(method, found, folder, in_this_process, capsys):
    arguments = ["--width", "small", "--blocks", str(BLOCKS), "--tokens", str(TOKENS), "--keep", str(folder)]
    bench.main([*arguments, "--methods", method])
    printed = capsys.readouterr().out
    assert f"{method}: {found}" in printed and "differs" not in printed
    if found.endswith("mean "):
        # the last digits are the processor's
        assert float(printed.partition(found)[2].partition(",")[0]) == pytest.approx(1.0, abs=0.01)
    row = next(line for line in printed.splitlines() if line.startswith(f"| {method} |"))
    seconds, memory = [float(cell) for cell in row.split("|")[2:4]], [float(cell) for cell in row.split("|")[5:7]]
    assert min(seconds) > 0 and min(memory) > 0.1


def test_other_exponents_and_near_ties_are_listed(tmp_path):
    import torch
    from safetensors.torch import save_file

    errors = [2.0] * 20
    errors[10], errors[11] = 1.0, 1.0005
    plain = {"groups": {name: {"exponent": 0.5, "errors": errors} for name in ("a", "b")}}
    fast = {"groups": {"a": {"exponent": 0.5}, "b": {"exponent": 0.55}}}
    for implementation, scale in (("plain", 1.0), ("fast", 1.5)):
        save_file({"a": torch.full((2,), scale), "b": torch.ones(2)}, tmp_path / f"mbq-{implementation}.safetensors")
    lines = bench.compare_searches("mbq", plain, fast, tmp_path)
    assert lines[0] == "exponents equal in 1 of 2 groups, scales within 5e-01 (1e-06)"
    assert lines[1] == "near-ties (within 1e-03): a 0.5/0.55 (5e-04), b 0.5/0.55 (5e-04)"
    assert lines[2:] == ["differs: b: 0.55 for 0.5, 5.0e-04 worse"]
