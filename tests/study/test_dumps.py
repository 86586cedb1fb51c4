"""Which answers the job of a dataset goes on with."""

import os
from pathlib import Path

import pytest

from quantrust.artifacts.folder_record import RECORD
from quantrust.study import inputs, paths
from quantrust.study.asked import forget_asked, note_asked
from quantrust.study.config import read_study
from quantrust.study.contents import CANDIDATES, LANGUAGE_SHIFT
from quantrust.study.digests import family_code, script_code, task_code
from quantrust.study.dumps import dump_given, dump_of, dumps_beside

MODEL, SCHEME = "qwen2-vl-tiny", "hqq-w4g64-full"
SHIFTS = ["scenes-language", "scenes-multimodal"]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The default study in an empty folder, where one variant and the questions of all datasets are there."""
    config = read_study([])
    monkeypatch.chdir(tmp_path)
    for dataset in ("scenes", *SHIFTS):
        dump = dump_of(config, MODEL, SCHEME, dataset)
        for folder in dump.images:
            Path(folder).mkdir(parents=True, exist_ok=True)
        Path(dump.questions).parent.mkdir(parents=True, exist_ok=True)
        Path(dump.questions).touch()
    make_checkpoint(SCHEME)
    return config


def make_checkpoint(scheme: str, model: str = MODEL) -> Path:
    folder = Path(paths.CHECKPOINT.format(model=model, scheme=scheme))
    folder.mkdir(parents=True)
    Path(folder, RECORD).touch()
    return folder


def features(dataset: str, scheme: str = SCHEME) -> str:
    return paths.FEATURES.format(model=MODEL, scheme=scheme, dataset=dataset)


def beside(config: dict, dataset: str = "scenes") -> list[str]:
    return [dump.place for dump in dumps_beside(config, MODEL, SCHEME, dataset, dump_given(config, MODEL, dataset))]


def test_a_job_goes_on_with_what_the_run_asks_the_variant_and_with_nothing_else(config: dict) -> None:
    assert beside(config) == []
    note_asked([features("scenes"), features(SHIFTS[1]), features(SHIFTS[0], "bf16")])
    assert beside(config) == [features(SHIFTS[1])]
    assert beside(config, SHIFTS[1]) == [features("scenes")]
    note_asked(map(features, SHIFTS))
    assert beside(config) == [*map(features, SHIFTS)]


def test_a_job_goes_on_with_other_variants_of_its_model_once_they_are_there(config: dict) -> None:
    first, second = "bf16", "hqq-w2g64-full"
    note_asked([features("scenes", second), features(SHIFTS[0], first), features(SHIFTS[0])])
    found = dumps_beside(config, MODEL, SCHEME, "scenes", dump_given(config, MODEL, "scenes"))
    make_checkpoint(first, "idefics3-tiny")
    assert next(found).place == features(SHIFTS[0])
    # made while the job answered
    make_checkpoint(second)
    assert [dump.place for dump in found] == [features("scenes", second)]
    make_checkpoint(first)
    assert beside(config) == [features(SHIFTS[0]), features(SHIFTS[0], first), features("scenes", second)]


def test_what_the_run_is_about_to_make_anew_is_waited_for(config: dict) -> None:
    other = "bf16"
    folder = make_checkpoint(other)
    asked = [features("scenes", other), features(SHIFTS[0], other)]
    note_asked([*asked, str(folder)])
    begun = Path(paths.ASKED).stat().st_mtime
    questions = Path(paths.QUESTIONS.format(dataset=SHIFTS[0]))
    for path in (folder / RECORD, questions):
        os.utime(path, (begun - 1, begun - 1))
    assert beside(config) == []
    note_asked(asked)
    assert beside(config) == asked
    note_asked([*asked, str(questions)])
    assert beside(config) == asked[:1]
    os.utime(questions)
    assert beside(config) == asked


def test_a_job_whose_code_was_edited_since_goes_on_with_nothing(config: dict) -> None:
    note_asked(map(features, SHIFTS))
    given = dump_given(config, MODEL, "scenes")
    older = {**given, "code": ["another", *given["code"][1:]]}
    assert list(dumps_beside(config, MODEL, SCHEME, "scenes", older)) == []


def test_what_a_run_asked_for_is_forgotten_when_it_ends(config: dict) -> None:
    note_asked([features(SHIFTS[1])])
    forget_asked()
    assert beside(config) == []
    forget_asked()


def test_what_was_made_since_the_run_began_is_left_and_what_is_older_is_made_anew(config: dict) -> None:
    note_asked(map(features, SHIFTS))
    begun = Path(paths.ASKED).stat().st_mtime
    for dataset, age in zip(SHIFTS, (1, -1), strict=True):
        path = Path(features(dataset))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (begun + age, begun + age))
    assert beside(config) == [features(SHIFTS[1])]


def test_a_dataset_whose_questions_are_not_there_is_left_to_its_own_job(config: dict) -> None:
    note_asked(map(features, SHIFTS))
    Path(paths.QUESTIONS.format(dataset=SHIFTS[0])).unlink()
    assert beside(config) == [features(SHIFTS[1])]


def test_cells_of_a_grid_are_left_to_jobs_of_their_own_kind(config: dict) -> None:
    grid = {"methods": ["hqq"], "group": 64, "symmetric": False, "levels": [4, 16]}
    config["factorial"] = {"parts": {**grid, "factors": [{"component": "vision"}, {"component": "language"}]}}
    cell = "hqq-g64-vision4"
    note_asked([features("scenes", cell)])
    assert list(dumps_beside(config, MODEL, cell, SHIFTS[0], dump_given(config, MODEL, SHIFTS[0]))) == []


def test_answers_depend_on_the_code_of_script_family_and_task(config: dict) -> None:
    assert dump_given(config, MODEL, "scenes")["code"] == [
        script_code("dump_features"),
        family_code(config, MODEL),
        task_code(config, "scenes"),
    ]


def test_questions_and_what_they_are_chosen_by_come_before_answers_and_the_id_dataset_before_shifts() -> None:
    config = read_study([])
    adversary = config["datasets"][LANGUAGE_SHIFT]["adversary"]
    assert inputs.priority_of_checkpoint(config, adversary, "bf16") == inputs.QUESTIONS_FIRST
    assert inputs.priority_of_checkpoint(config, MODEL, "bf16") == inputs.EMBEDDED_FIRST
    assert inputs.priority_of_checkpoint(config, adversary, SCHEME) == inputs.EMBEDDED_FIRST
    config["models"]["large"] = {"family": "qwen2_vl", "source": "somewhere"}
    assert inputs.priority_of_checkpoint(config, "large", "bf16") == 0
    places = [inputs.priority_of(config, dataset) for dataset in (CANDIDATES, "scenes", *config["study"]["shifts"])]
    assert places == [inputs.QUESTIONS_FIRST, 1, 0, 0] and 1 < inputs.EMBEDDED_FIRST < inputs.QUESTIONS_FIRST
