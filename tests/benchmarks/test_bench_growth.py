"""The benchmark of growth at a tiny size: its exponents by hand, and that everything that it measures runs."""

import math

import pytest
from matplotlib.image import imread

import bench_growth as bench
from growth import jobs, stages, study
from measuring import Cost
from quantrust.study.jobs import study_jobs

GIGABYTE = 10**9


def costs(seconds: dict[int, float], peaks: dict[int, int]) -> dict[int, Cost]:
    """What a stage took, by size."""
    return {size: Cost(seconds[size], seconds[size], peaks[size], GIGABYTE) for size in seconds}


def test_exponents_are_those_of_the_larger_sizes_and_of_memory_beyond_the_imports() -> None:
    sizes = (2, 8, 32, 128)
    # Below eight variants half a second for all of them would flatten the line.
    found = costs({size: max(size, 5) ** 2 / 10 for size in sizes}, {size: GIGABYTE * (1 + size) for size in sizes})
    assert bench.growth_of(found) == pytest.approx((2.0, 1.0))
    short = costs(dict.fromkeys(sizes, 0.001), dict.fromkeys(sizes, GIGABYTE))
    assert all(map(math.isnan, bench.growth_of(short)))
    # What a few variants do not need yet still grows.
    late = costs(dict.fromkeys(sizes, 1.0), {2: GIGABYTE, 8: GIGABYTE, 32: GIGABYTE, 128: 2 * GIGABYTE})
    assert bench.growth_of(late)[1] > 1.0


def test_an_exponent_above_the_limit_is_bold(capsys) -> None:
    found = {"slow": costs({8: 1.0, 16: 4.0}, {8: 2 * GIGABYTE, 16: 3 * GIGABYTE})}
    bench.print_growth("stage", "variants", found)
    row = capsys.readouterr().out.strip().split("\n")[-1]
    assert row.split(" | ")[-2:] == ["**2.00**", "1.00 |"]


def test_a_study_has_about_as_many_jobs_as_asked_for(tmp_path) -> None:
    count = jobs.prepare_plan(tmp_path / "plan", 300)
    assert abs(count - 300) <= 20
    names = study.scheme_names(700)
    assert len(set(names)) == 700 and names[:30] == study.scheme_names(30)
    config = study.config_of(3, 100, 10)
    assert len(config["study"]["schemes"]) == 3
    # Every job that reads all variants is measured, but those of grids, which the study has none of.
    together = {job.rule for job in study_jobs(config) if job.model is None and job.dataset is None}
    assert together == set(stages.of_all(config))


@pytest.mark.slow
def test_everything_is_measured_and_drawn(tmp_path, capfd) -> None:
    figure = tmp_path / "growth.png"
    arguments = ["--quick", "--jobs", "60", "70", "--folder", str(tmp_path / "work"), "--figure", str(figure)]
    bench.main(arguments)
    printed = capfd.readouterr().out
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in printed.splitlines() if line.startswith("| ")}
    config = study.config_of(2, 100, 10)
    assert rows.keys() >= {*stages.OF_ONE, *stages.of_all(config), "snakemake -n"}
    done = [
        line.split(" | ")[1:3] for line in printed.splitlines() if line.startswith(tuple(f"| {h}" for h in jobs.HOOKS))
    ]
    assert done == [["20", "20"]] * 2
    assert (tmp_path / "work" / "stages" / "reports" / "index.html").stat().st_size > 100_000
    assert imread(figure).shape[0] > 300
