"""How the pipeline grows: its evaluation and report with the variants of a study, Snakemake with its jobs.

Usage: PYTHONPATH=workflow/scripts:tests python benchmarks/bench_growth.py [--quick] [--parts stages plan scheduler]
    [--variants 2 8 32 128] [--questions 250000] [--resamples 10000] [--intervals 300] [--jobs 300 3000 10000]
    [--trivial 300 3000] [--held 60] [--limit 1800] [--folder DIR] [--figure benchmarks/growth.png]

Every measurement is of a process of its own. Exponents are fitted to logarithms, from 8 variants on where there are two
such sizes, else to all; those of memory to what a process takes beyond its imports.
"""

import argparse
import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, NullLocator
from tqdm import tqdm

from growth import jobs, stages, study
from measuring import Cost, alone, preload
from quantrust.quantization.scheme import UNQUANTIZED
from quantrust.report.plots import save_plot
from quantrust.report.style import OTHER_COLOURS, OTHER_MARKERS, styled_figure

PARTS = ("stages", "plan", "scheduler")
FULL = {
    "variants": [2, 8, 32, 128],
    "questions": 250_000,
    "resamples": 10_000,
    "intervals": 300,
    "jobs": [300, 3000, 10_000],
    "trivial": [300, 3000],
    "held": 60,
}
QUICK = {
    "variants": [2, 3],
    "questions": 2000,
    "resamples": 60,
    "intervals": 10,
    "jobs": [60],
    "trivial": [20],
    "held": 2,
}
FIT_FROM = 8
"""Variants from which on a stage's exponent is fitted: below, what every size has in common weighs too much."""
LIMIT = 1.1
"""The largest exponent that is to be reached."""
SHORTEST_S, SMALLEST = 0.05, 4 << 20
"""Seconds and bytes below which differences say nothing about growth."""
SHOWN = 6
"""Stages that the figure names: those that take longest."""

Costs = Mapping[int, Cost]
"""By size."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for and print tables in Markdown."""
    options = parse(arguments)
    preload(stages.IMPORTED)
    with nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory() as folder:
        found = {part: MEASURES[part](Path(folder).resolve() / part, options) for part in options.parts}
    if options.figure:
        draw(found.get("stages", {}), found.get("plan", {}), options.figure)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; `--quick` sets sizes with which everything runs within minutes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--stages", nargs="+", help="those of all variants to measure, by their rules; by default all")
    parser.add_argument("--variants", nargs="+", type=int, help="numbers of variants")
    parser.add_argument("--questions", type=int, help="questions of a variant")
    parser.add_argument("--resamples", type=int, help="resamples of images for comparisons")
    parser.add_argument("--intervals", type=int, help="resamples of images for the intervals of one variant")
    parser.add_argument("--jobs", nargs="+", type=int, help="numbers of jobs that are planned")
    parser.add_argument("--trivial", nargs="+", type=int, help="numbers of jobs that are run and do nothing")
    parser.add_argument("--held", type=float, help="seconds in which no job can start, after those that do nothing")
    parser.add_argument("--limit", type=float, default=1800.0, help="most seconds of a run of such jobs")
    parser.add_argument("--folder", type=Path, help="where to work, a folder that is not there yet; it is kept")
    parser.add_argument("--figure", type=Path, help="draw what was measured into this PNG file")
    options = parser.parse_args(arguments)
    for name, size in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, size)
    return options


def measure_stages(folder: Path, options: argparse.Namespace) -> dict[str, Costs]:
    """Measure the stages of one variant once, and those that read all variants for every number of variants."""
    folder.mkdir(parents=True)
    here = Path.cwd()
    os.chdir(folder)
    try:
        sizes = sorted(options.variants)
        configs = {size: study.config_of(size, options.resamples, options.intervals) for size in sizes}
        of_one = _make_variants(options.questions, configs[sizes[-1]])
        found: dict[str, dict[int, Cost]] = {}
        for size, config in configs.items():
            reports = config["report"]["folder"]
            study.add_variants(config["study"]["schemes"], config["study"]["schemes"][1], reports)
            chosen = {
                name: stage
                for name, stage in stages.of_all(config).items()
                if options.stages is None or name in options.stages
            }
            for name, (stage, arguments) in tqdm(chosen.items(), desc=f"{size} variants", unit="stage"):
                found.setdefault(name, {})[size] = alone(stage, *arguments)
    finally:
        os.chdir(here)
    print(f"\n## Stages\n\n{options.questions:,} questions a variant, {options.resamples:,} resamples.\n")
    rows = [(name, _seconds(cost.wall_s), _seconds(cost.cpu_s), _memory(cost)) for name, cost in of_one.items()]
    print_table(("stage of one variant", "seconds", "CPU seconds", "peak memory, MB"), rows)
    print_growth("stage", "variants", found)
    return found


def _make_variants(questions: int, config: Mapping[str, Any]) -> dict[str, Cost]:
    """Make both variants up with the stages of one variant, and return what these took for the unquantized one."""
    study.write_data(questions, config)
    costs = {}
    for scheme in config["study"]["schemes"][:2]:
        study.write_answers(scheme)
        for name, stage in tqdm(stages.OF_ONE.items(), desc=scheme, unit="stage"):
            cost = alone(stage, config, scheme)
            if scheme == UNQUANTIZED:
                costs[name] = cost
    return costs


def measure_plan(folder: Path, options: argparse.Namespace) -> dict[str, Costs]:
    """Measure the dry run of studies of so many jobs."""
    found = {}
    for asked in tqdm(sorted(options.jobs), desc="dry runs", unit="study"):
        count = jobs.prepare_plan(folder / str(asked), asked)
        found[count] = jobs.plan(folder / str(asked))
    print("\n## Dry run\n")
    print_growth("what", "jobs", {"snakemake -n": found}, fit_from=0)
    return {"snakemake -n": found}


def measure_scheduler(folder: Path, options: argparse.Namespace) -> dict[str, Costs]:
    """Measure the main process while it runs jobs that do nothing, and a minute in which none can start.

    With the limit of jobs per second, and without it.
    """
    found: dict[str, dict[int, Cost]] = {}
    rows = []
    runs = [(count, name, hook) for count in sorted(options.trivial) for name, hook in jobs.HOOKS.items()]
    for count, name, hook in tqdm(runs, desc="jobs that do nothing", unit="run"):
        place = folder / f"{count}-{len(rows)}"
        jobs.prepare_trivial(place, count, hook, options.held)
        cost = jobs.run_trivial(place, options.limit)
        done = jobs.jobs_done(place)
        rows.append((name, f"{count:,}", f"{done:,}", _seconds(cost.wall_s), _seconds(cost.cpu_s), _memory(cost)))
        if cost.ended:
            found.setdefault(name, {})[count] = cost
    held = f"Then {jobs.CORES} jobs hold them for {options.held:g} s, while {jobs.WAITING} wait."
    print(
        f"\n## Jobs that do nothing\n\nOn {jobs.CORES} cores. {held} Each run stopped after {options.limit:,.0f} s.\n"
    )
    head = ("scheduler", "jobs", "done", "seconds", "CPU seconds of the main process", "peak memory, MB")
    print_table(head, rows)
    return found


MEASURES: dict[str, Callable[[Path, argparse.Namespace], dict[str, Costs]]] = {
    "stages": measure_stages,
    "plan": measure_plan,
    "scheduler": measure_scheduler,
}


def exponent(sizes: Sequence[float], values: Sequence[float], least: float) -> float:
    """Return the slope of a line through logarithms; smaller values than `least` count as that.

    NaN where there are not two sizes, or no value is above `least`.

    Examples
    --------
    >>> round(exponent([8, 32, 128], [2.0, 4.0, 8.0], 0.1), 6)
    0.5
    """
    if len(sizes) < 2 or max(values) <= least:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, least)), 1)[0])


def growth_of(costs: Costs, fit_from: int = FIT_FROM) -> tuple[float, float]:
    """Return the exponents of processor time and of memory beyond the imports."""
    sizes = [size for size in costs if size >= fit_from]
    sizes = sizes if len(sizes) > 1 else list(costs)
    return (
        exponent(sizes, [costs[size].cpu_s for size in sizes], SHORTEST_S),
        exponent(sizes, [costs[size].peak - costs[size].before for size in sizes], SMALLEST),
    )


def print_growth(what: str, of: str, found: Mapping[str, Costs], fit_from: int = FIT_FROM) -> None:
    """Print what was measured by size, with exponents; those above the limit in bold."""
    sizes = list(next(iter(found.values())))
    cells = [f"{size:,} {of}" if place == 0 else f"{size:,}" for place, size in enumerate(sizes)]
    head = [what, *(f"{kind}: {cell}" for kind in ("s", "CPU s", "MB") for cell in cells), "exponent, CPU s", "MB"]
    rows = []
    for name, costs in found.items():
        numbers = [_seconds(costs[size].wall_s) for size in sizes]
        numbers += [_seconds(costs[size].cpu_s) for size in sizes]
        numbers += [_memory(costs[size]) for size in sizes]
        rows.append((name, *numbers, *map(_exponent, growth_of(costs, fit_from))))
    print_table(head, rows)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown."""
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:,.0f}"


def _memory(cost: Cost) -> str:
    return f"{cost.peak / 1e6:,.0f}"


def _exponent(value: float) -> str:
    if math.isnan(value):
        return "–"  # noqa: RUF001
    return f"**{value:.2f}**" if value > LIMIT else f"{value:.2f}"


def draw(by_variants: Mapping[str, Costs], by_jobs: Mapping[str, Costs], path: Path) -> None:
    """Draw processor time and memory against the number of variants and of jobs, both on logarithmic axes."""
    longest = sorted(by_variants, key=lambda name: -max(cost.cpu_s for cost in by_variants[name].values()))
    panels = [
        ({name: by_variants[name] for name in longest[:SHOWN]}, "variants", "CPU seconds"),
        ({name: by_variants[name] for name in longest[:SHOWN]}, "variants", "peak memory, MB"),
        (by_jobs, "jobs of a dry run", "CPU seconds"),
    ]
    with styled_figure(height=3.2) as figure:
        for axes, (found, of, kind) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            for (name, costs), colour, marker in zip(found.items(), OTHER_COLOURS, OTHER_MARKERS, strict=False):
                values = [cost.cpu_s if kind == "CPU seconds" else cost.peak / 1e6 for cost in costs.values()]
                axes.plot(list(costs), values, color=colour, marker=marker, markersize=3, label=name)
            axes.set(xscale="log", yscale="log", xlabel=of, ylabel=kind)
            axes.set_xticks([*next(iter(found.values()))] if found else [])
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(lambda value, _: f"{value:,g}")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(NullLocator())
        # the first two panels show the same stages
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=3, fontsize=6)
        save_plot(figure, path, "png")


if __name__ == "__main__":
    main()
