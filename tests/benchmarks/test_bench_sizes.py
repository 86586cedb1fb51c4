"""The table of sizes, on a small model in the published layout."""

import bench_sizes as bench
from published_layout import MINI


def test_sizes_are_against_the_unquantized_model(capsys):
    bench.print_table({"mini": ("qwen2_vl", MINI["qwen2_vl"])}, ("bf16", "mbq-w3g64-full", "mbq-w4g128-full"))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1] for row in rows] == ["bf16", "mbq-w3g64-full", "mbq-w4g128-full"]
    whole, three, four = (int(row[2].replace(",", "")) for row in rows)
    assert rows[0][3] == "0.0 %" and rows[1][3] == f"{100 * (1 - three / whole):.1f} %"
    assert rows[2][3].endswith("(72 %)") and three < four < whole
    # three bits take four once they are loaded for the kernel
    assert int(rows[1][6].replace(",", "")) > int(rows[1][5].replace(",", ""))
