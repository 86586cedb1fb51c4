"""Captions of results in Snakemake's report: each is there and used, with a category and a label."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_caption_is_used_and_every_result_has_a_category_and_a_label() -> None:
    rules = "".join(path.read_text() for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")))
    results = [text.split("    log:")[0] for text in rules.split("report(")[1:]]
    captions = [re.search(r"report/(\w+\.rst)", result).group(1) for result in results]
    shipped = {path.name for path in (ROOT / "workflow" / "report").glob("*.rst")} - {"study.rst"}
    assert set(captions) == shipped
    for result in results:
        assert "category=" in result and "labels=" in result, result
