"""`quantrust verify`: a changed byte of any artifact of a study is named, with what builds the artifact anew."""

import os
import random
import re
import shlex
import shutil
from pathlib import Path

import polars as pl
import pytest

from quantrust.artifacts.documents import check_document, writing_document
from quantrust.artifacts.folder_record import check_folder
from quantrust.artifacts.folders import artifact_folder
from quantrust.artifacts.parquet_seal import check_seal
from quantrust.artifacts.tables import write_table
from quantrust.cli import main
from quantrust.errors import QuantrustError
from quantrust.planning.integrity import files_on_request, study_files, verify_study
from quantrust.study import paths
from quantrust.study.config import read_study
from study_workspace import link_workflow

CONFIG = "config/quick.yaml"
# A study with something of everything: shards, a stressed and a trained model, a dataset to divide, groups, a grid,
# a download.
EVERYTHING = """
study: {models: [qwen2-vl-tiny, wide, adversary], shifts: [scenes-language, own]}
features: {shards: 2}
evaluation: {groups: [kind]}
selector: {learning_curve: [100]}
factorial:
  parts:
    methods: [hqq]
    group: 64
    symmetric: false
    levels: [3, 16]
    factors: [{component: vision}, {component: language}]
models:
  wide: {stress: {model: qwen2-vl-tiny, share: 0.25, factor: 8}}
  adversary: {source: data/trained/adversary}
downloads: {got: {url: "https://example.org/a.zip", folder: own}}
datasets:
  own:
    {format: vqav2, questions: own/q.json, annotations: own/a.json, images: own, image_name: "{image_id}.jpg",
    downloads: [got], groups: own/groups.csv, split: {dev: 0.4, val: 0.1, test: 0.5, seed: 0}}
"""
# Laid over the study above: cells of a grid are made together where no dataset is sharded.
UNSHARDED = "features: {shards: 1}"
# What waits for its own job belongs to no study yet: the job that takes it reads it back.
WAITING = {"MADE_CELL", "MADE_CHECKPOINT", "MADE_FEATURES", "ASKED"}
PATTERNS = {
    name: value
    for name, value in vars(paths).items()
    if name.isupper() and isinstance(value, str) and name not in WAITING
}
READERS = {"folder": check_folder, "table": check_seal, "document": check_document}


def kind_of(path: str) -> str:
    if path.endswith(".parquet"):
        return "table"
    return "document" if path.startswith("reports/") or path.endswith(".json") else "folder"


def write_artifact(path: str) -> None:
    match kind_of(path):
        case "folder":
            with artifact_folder(path) as folder:
                (folder / "images").mkdir()
                (folder / "images" / "1.png").write_bytes(b"\x89PNG" * 9)
                (folder / "config.json").write_text('{"format": 3}')
        case "table":
            write_table(pl.DataFrame({"question_id": ["1", path], "quality": [0.5, 1.0]}), path)
        case "document":
            with writing_document(path) as partial:
                partial.write_text(f"scheme,accuracy\n{path},0.5\n")


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory) -> Path:
    """A folder with the workflow and one artifact at every path of the quick study."""
    folder = tmp_path_factory.mktemp("study")
    link_workflow(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for path in study_files(read_study([CONFIG])):
            write_artifact(path)
    return folder


@pytest.fixture
def study(artifacts, tmp_path, monkeypatch) -> list[str]:
    """The paths of the artifacts, in a copy of their folder, which is the current one."""
    shutil.copytree(artifacts, tmp_path / "study", symlinks=True)
    monkeypatch.chdir(tmp_path / "study")
    return study_files(read_study([CONFIG]))


def files_of(path: str) -> list[Path]:
    """Return the files whose bytes an artifact consists of, its digest included."""
    if kind_of(path) == "folder":
        return sorted(file for file in Path(path).rglob("*") if file.is_file())
    if kind_of(path) == "document":
        return [Path(path), Path(path).parent / ".digests" / f"{Path(path).name}.sha256"]
    return [Path(path)]


def flip(path: Path, place: int, bit: int) -> None:
    """Change a bit of a file and leave its time."""
    content, times = bytearray(path.read_bytes()), path.stat()
    content[place] ^= 1 << bit
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def verify(capsys) -> tuple[int, str, str]:
    code = main(["verify", "--config", CONFIG])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_a_whole_study_is_whole_and_one_that_is_not_finished_too(study, capsys):
    code, out, err = verify(capsys)
    assert (code, out) == (0, f"all {len(study)} artifacts that are there are whole\n")
    assert f"verifying: {len(study)} of {len(study)} artifacts" in err
    for path in study[5:]:
        (shutil.rmtree if Path(path).is_dir() else os.remove)(path)
    code, out, _ = verify(capsys)
    assert (code, out) == (0, f"all 5 artifacts that are there are whole; {len(study) - 5} more are not there\n")


def test_where_nothing_of_a_study_is_that_is_said(study, capsys):
    for folder in ("data", "reports"):
        shutil.rmtree(folder)
    code, out, err = verify(capsys)
    assert (code, out) == (2, "")
    assert f"none of the study's {len(study)} artifacts is here, for example {study[0]}; go to the folder in" in err


def flips(study: list[str], count: int) -> None:
    """Change a bit at a random place of an artifact, all kinds in turn, and expect its reader to notice."""
    draw = random.Random(0)
    kinds = {kind: [path for path in study if kind_of(path) == kind] for kind in READERS}
    for number in range(count):
        kind = list(READERS)[number % len(READERS)]
        path = draw.choice(kinds[kind])
        file = draw.choice(files_of(path))
        place, bit = draw.randrange(file.stat().st_size), draw.randrange(8)
        flip(file, place, bit)
        with pytest.raises(QuantrustError, match="damaged"):
            READERS[kind](path)
        flip(file, place, bit)
        READERS[kind](path)


def test_a_changed_bit_of_any_kind_of_artifact_is_noticed(study):
    flips(study, 30)


@pytest.mark.slow
def test_each_of_three_hundred_changed_bits_is_noticed(study):
    flips(study, 300)


def test_every_damaged_artifact_is_named_with_what_builds_it_anew(study, capsys):
    """A bit of every artifact, in whichever of its files; then the two lines that are printed are carried out."""
    draw = random.Random(1)
    for path in study:
        file = draw.choice(files_of(path))
        flip(file, draw.randrange(file.stat().st_size), draw.randrange(8))
    code, out, _ = verify(capsys)
    assert code == 1
    *lines, total, remove, build = out.splitlines()
    assert len(lines) == len(study)
    assert all(line.startswith("damaged: ") and path in line for line, path in zip(lines, study, strict=True))
    assert total == f"{len(study)} of {len(study)} artifacts are damaged. This builds them anew:"
    assert shlex.split(remove) == ["rm", "-r", *study]
    assert shlex.split(build) == ["snakemake", "--configfile", CONFIG, "--", *study]


def test_files_that_are_lost_from_a_folder_or_take_a_place_that_is_not_theirs_are_damage(study, capsys):
    folder = next(path for path in study if kind_of(path) == "folder")
    table = next(path for path in study if kind_of(path) == "table")
    os.remove(Path(folder, "config.json"))
    os.remove(table)
    os.mkdir(table)
    code, out, _ = verify(capsys)
    assert code == 1
    assert f"damaged: {folder} lacks 'config.json'" in out and f"damaged: {table} is not an artifact of a study" in out


def studies_of_all():
    return [read_study(["everything.yaml"]), read_study(["everything.yaml", "unsharded.yaml"])]


@pytest.fixture
def one_of_each(tmp_path, monkeypatch) -> dict[str, str]:
    """An artifact of each kind in `quantrust.study.paths`, by the name of its pattern, in the current folder."""
    link_workflow(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("everything.yaml").write_text(EVERYTHING)
    Path("unsharded.yaml").write_text(UNSHARDED)
    files = [path for config in studies_of_all() for path in (*study_files(config), *files_on_request(config))]
    found = {}
    for name, pattern in PATTERNS.items():
        shape = re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(pattern)))
        found[name] = next((path for path in files if shape.fullmatch(path)), "")
    return found


def test_verify_knows_every_kind_of_artifact(one_of_each):
    """Whoever adds a kind of artifact adds it to the jobs of a study, and to the study above."""
    assert [name for name, path in one_of_each.items() if not path] == []
    assert len({*one_of_each.values()}) == len(PATTERNS)


def test_a_changed_bit_of_every_kind_of_artifact_is_noticed(one_of_each):
    draw = random.Random(2)
    for path in one_of_each.values():
        write_artifact(path)
    configs = studies_of_all()
    assert not any(verify_study(config).damaged for config in configs)
    for path in one_of_each.values():
        file = draw.choice(files_of(path))
        flip(file, draw.randrange(file.stat().st_size), draw.randrange(8))
    assert {path for config in configs for path in verify_study(config).damaged} == {*one_of_each.values()}
