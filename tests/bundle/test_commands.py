"""`quantrust bundle` and `quantrust answer`: exit codes, output, and one message for bad input."""

import json
import shutil

import pytest

from bundled_study import SETTINGS
from quantrust.cli import main


@pytest.fixture(scope="module")
def study_folder(bundled_study, tmp_path_factory):
    """The study's artifacts in the places where a study has them."""
    data, source = tmp_path_factory.mktemp("study") / "data", bundled_study.folder
    places = {
        "checkpoint": "checkpoints/tiny/rtn-w8g64-full",
        "selector": "selectors/tiny/rtn-w8g64-full",
        "points.json": "operating_points/tiny/rtn-w8g64-full.json",
        ".digests/points.json.sha256": None,
        "metrics.parquet": "metrics/tiny/rtn-w8g64-full.parquet",
        "scores.parquet": "scores/tiny/rtn-w8g64-full.parquet",
        "features.parquet": "features/tiny/rtn-w8g64-full/pictures.parquet",
    }
    for name, place in places.items():
        if place is not None:
            target = data / place
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (source / name).is_dir() else shutil.copyfile
            copy(source / name, target)
    note = data / "operating_points" / "tiny" / ".digests" / "rtn-w8g64-full.json.sha256"
    note.parent.mkdir()
    written = (source / ".digests" / "points.json.sha256").read_text()
    note.write_text(written.replace("points.json", "rtn-w8g64-full.json"))
    return data


@pytest.fixture
def asked(bundled_study):
    """Question and image of a test question that is answered, and of one that is not."""
    threshold = bundled_study.scores()["maxprob"].quantile(0.5, "nearest")
    rows = bundled_study.test_questions().rows(named=True)
    confidences = bundled_study.scores()["maxprob"].to_list()
    surest = max(range(len(rows)), key=confidences.__getitem__)
    least = min(range(len(rows)), key=confidences.__getitem__)
    assert confidences[least] < threshold < confidences[surest]
    return [["--image", rows[k]["image"], "--question", rows[k]["question"]] for k in (surest, least)]


def test_a_bundle_from_the_command_line_answers(study_folder, asked, tmp_path, capsys):
    checkpoint, out = study_folder / "checkpoints" / "tiny" / "rtn-w8g64-full", tmp_path / "mine"

    assert main(["bundle", str(checkpoint), "--risk", "0.2", "--license", "mit", "--out", str(out)]) == 0
    assert "risk limits 0.05 (val), 0.2 (val, certified)" in capsys.readouterr().out
    # nothing of the study is needed any more
    moved = shutil.copytree(out, tmp_path / "elsewhere")
    shutil.rmtree(out)

    assert main(["answer", str(moved), *asked[0]]) == 0
    assert main(["answer", str(moved), *asked[1]]) == 3
    printed = capsys.readouterr().out
    assert printed.count("(abstained)") == 1
    assert main(["answer", str(moved), *asked[1], "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["answered"] is False
    assert found["certified"] is True
    assert found["confidence"] < found["threshold"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "absent.png", "--question", "is it?"], "absent.png: no such file"),
        (["--image", "absent.png", "--question", " "], "--question is empty"),
        (["--image", "absent.png", "--question", "is it?", "--risk", "0.3"], "no operating point for risk limit 0.3"),
        (["--image", "absent.png"], "answers questions; expected --question beside --image"),
        (["--question", "is it?"], "expected either --image and --question (--image alone of a bundle for captions)"),
        (["--items", "absent.jsonl"], "(--image alone of a bundle for captions), or --items and --out"),
        (["--items", "absent.jsonl", "--out", "out.jsonl"], "absent.jsonl: no such file"),
    ],
)
def test_bad_input_is_one_message_and_no_output(bundle_folder, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["answer", str(bundle_folder), *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_bundled_of_what_is_not_there(study_folder, tmp_path, capsys):
    checkpoint = str(study_folder / "checkpoints" / "tiny" / "rtn-w8g64-full")
    absent = str(study_folder / "checkpoints" / "tiny" / "bf16")
    bare = study_folder / "checkpoints" / "tiny" / "hqq-w4g64"
    bare.mkdir()
    out = ["--out", str(tmp_path / "out")]
    for arguments, message in (
        ([checkpoint, "--risk", "0.2", "--estimator", "guess", *out], "no estimator of this name"),
        ([checkpoint, "--risk", "0.3", *out], "for the risk limit 0.3"),
        ([absent, "--risk", "0.2", *out], "bf16: no such folder; expected data/checkpoints/<model>/<scheme>"),
        ([str(bare), "--risk", "0.2", *out], "`snakemake data/bundles/tiny/hqq-w4g64` in the study's folder"),
        ([checkpoint, "--risk", "0.2", "--out", str(study_folder)], "is not empty"),
    ):
        assert main(["bundle", *arguments]) == 2
        printed = capsys.readouterr()
        assert message in printed.err
        assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


def test_the_settings_of_the_study_travel_with_the_bundle(bundle):
    assert bundle.record.settings == SETTINGS
