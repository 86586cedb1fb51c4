"""The benchmark of dumps: both ways of answering find the same."""

import sys

import bench_dump as bench


def test_the_dump_finds_what_the_plain_loop_finds(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench_dump.py", "--images", "3", "--models", "llava-tiny", "--rounds", "1"])
    bench.main()
    [row] = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| llava-tiny")]
    assert [cell.strip() for cell in row[1:2] + row[5:6]] == ["18", "0"]
    assert float(row[6]) < 1e-5
