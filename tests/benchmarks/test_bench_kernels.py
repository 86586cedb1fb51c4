"""The benchmark of the kernels at a tiny size, and that its own int8 product is one."""

import pytest
import torch

import bench_kernels as bench
from quantrust.quantization.kernels.cpu import block_rows

pytestmark = pytest.mark.skipif(block_rows() is None, reason="torch's int4 CPU kernel needs AVX2 or AVX-512")
SHAPE = {"hidden": 256, "mlp": 512, "vocabulary": 1024, "heads": 4, "key_heads": 2, "vision": 64}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Checkpoints with blocks of 16 and of 4 bits, and a file with what each is called."""
    folder = tmp_path_factory.mktemp("kernels")
    bench.write_config(folder / "model", SHAPE, 1)
    for bits in (16, 4):
        bench.write_checkpoint(folder / "model", folder / str(bits), bits, bits)
    return {"bf16": folder / "16", "4 bits": folder / "4"}


def test_ways_to_multiply_are_timed(capsys):
    bench.crossover(SHAPE, (1, 80))
    printed = capsys.readouterr().out
    assert "| 1 | " in printed and "| 80 | " in printed
    # all ways multiply by the same weight
    errors = printed.split("Relative error of 16 rows at 8 bits: ")[1].split(".\n")[0].split(", ")
    figures = [float(part.split()[-1]) for part in errors if "e-" in part]
    assert len(figures) == 4 and max(figures) < 0.01


def test_a_product_for_each_group_is_the_product():
    weight = bench.random_weight(64, 256, 8)
    weight.zero = 100 + 50 * torch.rand_like(weight.zero)
    inputs = torch.randn(5, 256).bfloat16()
    expected = inputs.float() @ weight.dequantize(torch.float32).t()
    found = bench.Int8Groups(weight).by_groups(inputs).float()
    assert (found - expected).norm() < 0.01 * expected.norm()


def test_checkpoints_are_loaded_and_timed(folders, monkeypatch, capsys):
    monkeypatch.setattr(bench, "PROMPT", 16)
    results = {(16, 16): bench.measure(folders["bf16"], folders["4 bits"])}
    results[4, 4] = bench.measure(folders["4 bits"], folders["bf16"])
    # seven linears of the block, and the head
    assert results[4, 4]["kernels"] == {"int4": 8} and results[16, 16]["kernels"] == {}
    assert results[4, 4]["file"] < results[16, 16]["file"] / 2
    bench.print_results(results)
    printed = capsys.readouterr().out
    assert printed.count("| 4 / 4 |") == 2 and printed.count("(1.00)") >= 5


def test_widths_are_timed_in_turn(folders, monkeypatch, capsys):
    monkeypatch.setattr(bench, "TOKENS_BEFORE", (0, 8))
    monkeypatch.setattr(bench, "TURNS", 1)
    bench.print_alternating(bench.alternate(folders))
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[2] == "| tokens before | bf16 | 4 bits |" and lines[4].startswith("| 0 | ") and "| 8 | " in lines[5]
