"""Files of data with any damage: each reader takes them or refuses them in one line, at once, and writes nothing."""

import io
import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from damage import NO_JSON, OTHERS, damaged, places, refusal, replaced
from hunting import HUNTING, trials
from official_readers import read_official, read_vizwiz, read_vqav2
from quantrust.data.predictions import read_predictions
from quantrust.data.question_groups import read_groups
from quantrust.data.questions import SCHEMA, build_questions_table, write_division
from quantrust.data.rows import write_official
from quantrust.data.splits import read_split_file
from quantrust.tasks.task import task_of_format

pytestmark = pytest.mark.hunt

ANSWERS = [{"answer": "red", "answer_confidence": "yes", "answer_id": k + 1} for k in range(10)]
IMAGES = ("a", "b")
QUESTIONS = {
    "info": {"version": "2.0"},
    "questions": [
        {"question_id": k, "image_id": image, "question": "What?", "image": f"{image}.png"}
        for k, image in enumerate(IMAGES)
    ],
}
ANNOTATIONS = {
    "annotations": [
        {"question_id": k, "image_id": image, "answers": ANSWERS, "answer_type": "other", "question_kind": "colour"}
        for k, image in enumerate(IMAGES)
    ]
}
NUMBERED = {"questions": [{"question_id": k, "image_id": 7 + k, "question": "What?"} for k in range(2)]}
NUMBERED_ANNOTATIONS = {"annotations": [{"question_id": k, "answers": ANSWERS} for k in range(2)]}
LIST = [{"image": f"{image}.png", "question": "What?", "answers": ANSWERS, "answer_type": "other"} for image in IMAGES]
GQA = {
    str(k): {
        "imageId": image,
        "question": "What?",
        "answer": "red",
        "types": {"structural": "query", "semantic": "attr", "detailed": "x"},
    }
    for k, image in enumerate(IMAGES)
}
CHOICES = [
    {"question_id": k, "image": f"{image}.png", "question": "What?", "choices": ["red", "blue"], "answer": k}
    for k, image in enumerate(IMAGES)
]
PAIRS = {
    "images": [
        {
            "filename": f"{image}.png",
            "imgid": k,
            "split": "test",
            "sentences": [{"raw": f"Picture {image}.", "imgid": k, "sentid": 2 * k}, {"raw": "A picture.", "imgid": k}],
        }
        for k, image in enumerate(IMAGES)
    ]
}
CAPTIONS = {
    "images": [{"id": k, "file_name": f"{image}.png"} for k, image in enumerate(IMAGES)],
    "annotations": [
        {"id": 10 * k + number, "image_id": k, "caption": f"a red {2 * k + number} at the top left."}
        for k in range(len(IMAGES))
        for number in range(2)
    ],
}
SPLITS = {"dev": ["a"], "val": ["b"], "test": []}
PREDICTIONS = [
    {"question_id": 0, "answer": "red", "confidence": 0.5},
    {"question_id": 1, "answer": "", "confidence": 1},
]
FILES = {
    "q.json": QUESTIONS,
    "a.json": ANNOTATIONS,
    "n.json": NUMBERED,
    "m.json": NUMBERED_ANNOTATIONS,
    "v.json": LIST,
    "g.json": GQA,
    "c.json": CHOICES,
    "f.json": PAIRS,
    "k.json": CAPTIONS,
    "h.json": {"info": {"facts": True}, **CAPTIONS},
    "s.json": SPLITS,
    "p.json": PREDICTIONS,
}


@dataclass(frozen=True)
class Data:
    """A folder of whole files of data, and the outputs of what reads them."""

    folder: Path

    @property
    def outputs(self) -> tuple[Path, Path]:
        return self.folder / "questions.parquet", self.folder / "skipped.parquet"

    def spec(self, kind: str) -> dict[str, Any]:
        vqav2 = {"format": "vqav2", "images": self.folder / "images"}
        return {
            "vqav2": vqav2 | {"questions": self.folder / "q.json", "annotations": self.folder / "a.json"},
            "numbered": vqav2
            | {
                "questions": self.folder / "n.json",
                "annotations": self.folder / "m.json",
                "image_name": "{image_id:012d}.png",
            },
            "vizwiz": {"format": "vizwiz", "annotations": self.folder / "v.json", "images": self.folder / "images"},
            "gqa": {
                "format": "gqa",
                "annotations": self.folder / "g.json",
                "images": self.folder / "images",
                "image_name": "{image_id}.png",
            },
            "multiple_choice": {
                "format": "multiple_choice",
                "annotations": self.folder / "c.json",
                "images": self.folder / "images",
            },
            "flickr30k": {
                "format": "flickr30k",
                "annotations": self.folder / "f.json",
                "images": self.folder / "images",
                "subset": "test",
            },
            "coco_captions": {
                "format": "coco_captions",
                "annotations": self.folder / "k.json",
                "images": self.folder / "images",
            },
            "scene_captions": {
                "format": "scene_captions",
                "annotations": self.folder / "h.json",
                "images": self.folder / "images",
            },
        }[kind]

    def build(self, kind: str) -> None:
        spec = self.spec(kind)
        check = task_of_format(spec["format"]).check_references
        build_questions_table("data", {"test": spec}, *self.outputs, check_references=check)

    def divide(self, name: str = "s.json") -> None:
        division = {"file": self.folder / name, "splits": ["dev", "val"]}
        write_division("data", self.spec("vqav2"), division, self.outputs[0])

    def predict(self) -> None:
        questions = read_official(self.folder / "q.json", self.folder / "a.json")
        read_predictions(self.folder / "p.json", {question.question_id: question for question in questions})


READERS: dict[str, Callable[[Data], None]] = {
    "q.json": lambda data: data.build("vqav2"),
    "a.json": lambda data: data.build("vqav2"),
    "n.json": lambda data: data.build("numbered"),
    "m.json": lambda data: data.build("numbered"),
    "v.json": lambda data: data.build("vizwiz"),
    "g.json": lambda data: data.build("gqa"),
    "c.json": lambda data: data.build("multiple_choice"),
    "f.json": lambda data: data.build("flickr30k"),
    "k.json": lambda data: data.build("coco_captions"),
    "h.json": lambda data: data.build("scene_captions"),
    "s.json": lambda data: data.divide(),
    "p.json": lambda data: data.predict(),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Data:
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    for name in (*IMAGES, f"{7:012d}", f"{8:012d}"):
        Image.new("RGB", (2, 2)).save(folder / "images" / f"{name}.png")
    for name, content in FILES.items():
        (folder / name).write_text(json.dumps(content))
    return Data(folder)


def refused_or_taken(data: Data, name: str, content: bytes, read: Callable[[Data], None]) -> str | None:
    """Read a file with other content; nothing may be written where it is refused."""
    for path in data.outputs:
        path.unlink(missing_ok=True)
    before = (data.folder / name).read_bytes()
    (data.folder / name).write_bytes(content)
    try:
        message = refusal(lambda: read(data), name, "images/")
        assert message is None or not any(path.exists() for path in data.outputs)
        # of an image that is another one, and of what names it, the other file is as much to blame
        assert message is None or name in message or "cannot be used: " in message
    finally:
        (data.folder / name).write_bytes(before)
    return message


@pytest.mark.parametrize("name", FILES)
def test_whole_files_are_taken(whole, name):
    assert refused_or_taken(whole, name, json.dumps(FILES[name]).encode(), READERS[name]) is None


@pytest.mark.parametrize("name", FILES)
def test_one_fault_anywhere_is_refused_with_the_file_or_is_none(whole, name):
    """The file that is damaged is the one that is named, wherever readers take two."""
    faults = list(damaged(FILES[name]))
    sample = len(NO_JSON) + 60
    if not HUNTING:
        faults = faults[: len(NO_JSON)] + random.Random(name).sample(faults[len(NO_JSON) :], 60)
    taken = sum(refused_or_taken(whole, name, content, READERS[name]) is None for _, content in faults)
    # many values are nobody's business, and any text is a question's or an answer's
    assert taken < 0.6 * len(faults) and len(faults) >= sample


@pytest.mark.parametrize("label", NO_JSON)
def test_what_is_no_json_is_always_refused(whole, label):
    for name in FILES:
        assert refused_or_taken(whole, name, NO_JSON[label], READERS[name]) is not None


# Every text that JSON can write: lone surrogates too.
TEXTS = st.text(st.characters(codec=None), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.sampled_from(OTHERS),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXTS, children, max_size=4),
    max_leaves=12,
)


@given(data=st.data())
def test_any_values_in_any_places_are_refused_or_taken(whole, data):
    name = data.draw(st.sampled_from(sorted(FILES)))
    content = FILES[name]
    for _ in range(data.draw(st.integers(1, 3))):
        content = replaced(content, data.draw(st.sampled_from(list(places(content)))), data.draw(VALUES))
    refused_or_taken(whole, name, json.dumps(content).encode(), READERS[name])


@given(questions=st.lists(st.tuples(st.integers() | TEXTS, st.integers(0, 3) | TEXTS, TEXTS), max_size=4))
def test_what_is_taken_is_what_stands_there(whole, questions):
    """Against reading the very lists: nothing is dropped, merged, reworded or renamed."""
    records = [{"question_id": q, "image_id": i, "question": text, "image": f"{i}.png"} for q, i, text in questions]
    annotations = [{"question_id": q, "image_id": i, "answers": ANSWERS} for q, i, _ in questions]
    paths = whole.folder / "any-q.json", whole.folder / "any-a.json"
    for path, content in zip(paths, ({"questions": records}, {"annotations": annotations}), strict=True):
        path.write_text(json.dumps(content))
    for folder in (None, whole.folder / "images"):
        found = []
        if refusal(lambda folder=folder, found=found: found.extend(read_vqav2(*paths, folder)), "any-") is None:
            assert [(q.question_id, q.image_id, q.question) for q in found] == [
                (str(q), str(i), text) for q, i, text in questions
            ]
            assert len({q.question_id for q in found}) == len(found) > 0
            files = {q.image_id: q.image for q in found}
            assert folder is None or len(set(files.values())) == len(files)
            assert folder is None or all(Path(path).is_relative_to(folder) for path in files.values())


@given(names=st.lists(TEXTS | st.from_regex(r"[ab./\\]{1,6}"), max_size=4), asked=TEXTS)
def test_pictures_of_a_list_lie_in_their_folder_each_in_a_file_of_its_own(whole, names, asked):
    path, folder = whole.folder / "any-v.json", whole.folder / "images"
    path.write_text(json.dumps([{"image": name, "question": asked, "answers": ANSWERS} for name in names]))
    found = []
    if refusal(lambda: found.extend(read_vizwiz(path, folder)), "any-v.json") is None:
        assert [q.image_id for q in found] == names
        files = [Path(q.image).resolve() for q in found]
        assert len(set(files)) == len(files) and all(folder.resolve() in file.parents for file in files)


@given(lists=st.dictionaries(st.sampled_from(["dev", "val", "test"]) | TEXTS, st.lists(st.sampled_from("abc") | TEXTS)))
def test_a_split_file_of_json_puts_every_image_where_it_says(whole, lists):
    path, found = whole.folder / "any-s.json", []
    path.write_text(json.dumps(lists))
    if refusal(lambda: found.extend(read_split_file(path, "ab", ["dev"]).rows()), "any-s.json") is None:
        assert sorted(found) == sorted((image, split) for image in "ab" for split in lists if image in lists[split])


@given(
    content=st.binary(max_size=200)
    | st.text(st.sampled_from('image_id,split\n"abdev 1\0é'), max_size=60).map(str.encode)
)
def test_any_bytes_as_a_table_of_splits_or_groups_are_refused_or_taken(whole, content):
    path = whole.folder / "any-s.csv"
    for start in (b"", b"image_id,split\na,dev\n"):
        path.write_bytes(start + content)
        refusal(lambda: read_split_file(path, "ab", ["dev"]), "any-s.csv")
        refusal(lambda: read_groups(path, ASKED, ["split"]), "any-s.csv")


ASKED = pl.DataFrame({"question_id": ["1", "2"], "image_id": ["a", "b"]})
"""Questions whose groups a file brings."""

COLUMNS = {
    "image_id": [
        ["a", "b"], [1, 2], [1.5, 2.0], [["a"], ["b"]], [{"x": 1}, {"x": 2}], [None, "b"], [b"a", b"\xff"],
        [True, False],
    ],
    "split": [["dev", "val"], ["dev", "train"], [1, 2], [["dev"], ["val"]], [None, None], [b"dev", b"val"]],
}  # fmt: skip


def test_columns_of_every_type_are_refused_or_taken(whole):
    taken = 0
    for images, splits in itertools.product(*COLUMNS.values()):
        pl.DataFrame({"image_id": images, "split": splits}).write_parquet(whole.folder / "any-s.parquet")
        taken += refusal(lambda: whole.divide("any-s.parquet"), "any-s.parquet") is None
    assert taken == 1


def parquet_bytes(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["splits", "rows", "groups"])
def test_bytes_of_a_parquet_file_may_be_anything(whole, kind):
    row = {"question_id": ["1"], "question": ["?"], "answers": [["red"] * 10], "image": [b"x"]}
    columns = {
        "splits": {"image_id": ["a", "b"], "split": ["dev", "val"]},
        "rows": row,
        "groups": {"question_id": ["1", "2"], "region": ["x", "y"]},
    }
    content = parquet_bytes(**columns[kind])
    path, out = whole.folder / f"any-{kind}.parquet", whole.folder / f"out-{kind}"
    read = {
        "splits": lambda: read_split_file(path, "ab", ["dev"]),
        "rows": lambda: write_official([path], "vizwiz", out),
        "groups": lambda: read_groups(path, ASKED, ["region"]),
    }[kind]
    path.write_bytes(content)
    assert refusal(read, path.name) is None
    for number in trials(150, 20_000):
        draw, changed = random.Random(number), bytearray(content)
        for _ in range(draw.randint(1, 4)):
            changed[draw.randrange(len(changed))] = draw.choice([0, 255, draw.randrange(256)])
        path.write_bytes(changed[: draw.choice([len(changed), draw.randrange(len(changed))])])
        refusal(read, path.name)


PLAIN = st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.text(max_size=5) | st.binary(max_size=5)
CELLS = PLAIN | st.lists(PLAIN, max_size=3) | st.just(["red"] * 10) | st.fixed_dictionaries({"bytes": PLAIN})


@given(data=st.data(), form=st.sampled_from(["vqav2", "vizwiz"]))
def test_any_rows_are_refused_with_their_file_or_become_questions_that_are_read(whole, data, form):
    row = {
        "question_id": st.text(max_size=5) | st.integers(0, 3),
        "image_id": st.text(max_size=5) | st.integers(0, 3),
        "question": st.text(max_size=5),
        "answers": st.just(["red"] * 10),
        "image": st.sampled_from([b"x", b"y"]),
    }
    strange = data.draw(st.sampled_from([None, *row, "more"]))
    columns = {}
    for name, usual in (row | ({} if strange in row or strange is None else {strange: CELLS})).items():
        cell = data.draw(CELLS if name == strange else usual)
        columns[name] = [cell, cell if data.draw(st.booleans()) else data.draw(usual)]
    try:
        content = parquet_bytes(**columns)
    except (pa.ArrowException, OverflowError):
        # no column holds both
        return
    path, out = whole.folder / "any-rows.parquet", whole.folder / f"rows-{form}"
    path.write_bytes(content)
    for name in ("questions.json", "annotations.json"):
        (out / name).unlink(missing_ok=True)
    if refusal(lambda: write_official([path], form, out), path.name) is None:
        annotations = out / "annotations.json"
        found = (
            read_vizwiz(annotations, out / "images")
            if form == "vizwiz"
            else read_vqav2(out / "questions.json", annotations, out / "images")
        )
        assert [question.question for question in found] == columns["question"]
        images = [cell["bytes"] if isinstance(cell, dict) else cell for cell in columns["image"]]
        assert [Path(question.image).read_bytes() for question in found] == images
    else:
        assert not (out / "annotations.json").exists()


def test_what_is_written_has_the_columns_of_the_table(whole):
    whole.build("vqav2")
    assert pl.read_parquet(whole.outputs[0]).schema == SCHEMA
