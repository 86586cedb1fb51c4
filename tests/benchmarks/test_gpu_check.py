"""The check of a GPU, on a CPU with a small model: its table, and that what does not agree ends in a failure."""

import pytest
import torch

import gpu_check
from quantrust.errors import QuantrustError
from quantrust.quantization.kernels.cpu import block_rows


def table(printed):
    """The cells of the table by what was run."""
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert rows[0] == ["what", "agrees with the CPU", "by how much", "seconds", "CPU seconds", "peak memory, MB"]
    return {row[0]: row[1:] for row in rows[1:]}


@pytest.mark.slow
@pytest.mark.skipif(block_rows() is None, reason="torch's int4 CPU kernel needs AVX2 or AVX-512")
def test_everything_runs_on_a_cpu(tmp_path, capsys):
    arguments = ["--device", "cpu", "--width", "mini", "--folder", str(tmp_path), "--minutes", "30"]
    status = gpu_check.main(arguments)
    printed = capsys.readouterr().out
    rows = table(printed)
    assert status == 0, printed
    assert f"torch {torch.__version__}" in printed and printed.splitlines()[-1].startswith("All agree")
    assert rows["tests of the kernels"][:2] == ["yes", "6 tests passed, 0 failed, 0 skipped"]
    for scheme in gpu_check.SCHEMES:
        quantized = rows[f"{scheme}: quantized"]
        # the same processor twice
        assert quantized[:2] == ["yes", "100.00% of the bytes of codes are equal; errors of layers within 0.0e+00"]
        assert rows[f"{scheme}: decoding"][1].startswith("logits ") and "int4 in 14" in rows[f"{scheme}: decoding"][1]
        assert rows[f"{scheme}: 200 questions"][1].startswith("200 answered; of 40 ")
    measured = [cells[2:] for name, cells in rows.items() if name != "tests of the kernels"]
    assert len(measured) == 7
    assert all(float(seconds) > 0 and float(cpu) > 0 and float(peak) > 50 for seconds, cpu, peak in measured)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def nothing_to_quantize(monkeypatch):
    """Nothing is written, and every checkpoint is the same; a test sets what comparing says."""
    monkeypatch.setattr(gpu_check.Check, "write_model", lambda self, row: (None, ""))
    return lambda check: monkeypatch.setattr(gpu_check.Check, "quantize", lambda self, scheme, row: check())


def test_what_does_not_agree_ends_in_a_failure(nothing_to_quantize, capsys):
    arguments = ["--device", "cpu", "--parts", "quantize"]
    nothing_to_quantize(lambda: (True, "equal"))
    assert gpu_check.main(arguments) == 0
    capsys.readouterr()
    nothing_to_quantize(lambda: (False, "3 | 4 of 9"))
    assert gpu_check.main(arguments) == 1
    printed = capsys.readouterr().out
    assert table(printed)["hqq-w4g64: quantized"][:2] == ["**no**", "3 / 4 of 9"]
    assert "NOT ALL AGREE" in printed


def test_a_check_that_breaks_is_a_row_and_the_others_go_on(nothing_to_quantize, capsys):
    def broken():
        raise QuantrustError("the GPU is full;\nbuy another")

    nothing_to_quantize(broken)
    assert gpu_check.main(["--device", "cpu", "--parts", "quantize"]) == 1
    rows = table(capsys.readouterr().out)
    for scheme in gpu_check.SCHEMES:
        assert rows[f"{scheme}: quantized"][:2] == ["**failed**", "QuantrustError: the GPU is full;"]


def test_it_stops_when_its_time_is_over(nothing_to_quantize, capsys):
    def endless():
        while True:
            pass

    nothing_to_quantize(endless)
    assert gpu_check.main(["--device", "cpu", "--parts", "quantize", "--minutes", "0.005"]) == 1
    rows = table(capsys.readouterr().out)
    assert rows["hqq-w4g64: quantized"][0] == "**not finished**"
    assert rows["mbq-w4g64: quantized"][:2] == ["not run", "no time was left"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_without_a_gpu_it_says_so(capsys):
    assert gpu_check.main([]) == 1
    printed = capsys.readouterr()
    assert "sees no GPU" in printed.err and printed.out == ""


def test_its_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        gpu_check.main(["--help"])
    assert stopped.value.code == 0
    assert 'make gpu-check ARGS="--device cpu' in capsys.readouterr().out
