import json
from pathlib import Path

import pytest
import yaml

from official_readers import read_official, read_vizwiz, read_vqav2
from quantrust.data.official import IMAGE_NAME_PATTERN, IMAGE_NAMES
from quantrust.errors import QuantrustError
from quantrust.files import read_json

SCHEMA = Path(__file__).parents[2] / "workflow" / "schemas" / "config.schema.yaml"

ANSWERS = [{"answer": "red", "answer_confidence": "yes", "answer_id": i + 1} for i in range(10)]
VIZWIZ_ANSWERS = [{"answer": "unanswerable", "answer_confidence": "yes"} for _ in range(10)]


@pytest.fixture
def vqav2(tmp_path):
    """Write a pair of files in the published form; returns a function that writes changed ones."""

    def write(questions=None, annotations=None):
        questions = questions or [
            {"image_id": 262148, "question": "What color is it?", "question_id": 262148000},
            {"image_id": 262148, "question": "How many?", "question_id": 262148001},
        ]
        annotations = annotations or [
            {
                "question_type": "what color",
                "multiple_choice_answer": "red",
                "answers": ANSWERS,
                "image_id": question["image_id"],
                "answer_type": "other",
                "question_id": question["question_id"],
            }
            for question in questions
        ]
        header = {"info": {"version": "2.0"}, "data_type": "mscoco", "data_subtype": "val2014", "license": {}}
        (tmp_path / "q.json").write_text(json.dumps({**header, "task_type": "Open-Ended", "questions": questions}))
        (tmp_path / "a.json").write_text(json.dumps({**header, "annotations": annotations}))
        return tmp_path / "q.json", tmp_path / "a.json"

    return write


@pytest.fixture
def vizwiz(tmp_path):
    def write(records=None):
        records = records or [
            {
                "image": "VizWiz_val_00000000.jpg",
                "question": "Ok. There is another picture I hope it is a better one.",
                "answers": VIZWIZ_ANSWERS,
                "answer_type": "unanswerable",
                "answerable": 0,
            }
        ]
        (tmp_path / "v.json").write_text(json.dumps(records))
        return tmp_path / "v.json"

    return write


def annotation(question_id, answers=ANSWERS):
    return {"question_id": question_id, "image_id": 262148, "answers": answers, "answer_type": "other"}


def test_vqav2_as_published(vqav2):
    first, second = read_vqav2(*vqav2(), "images/val2014")
    assert first.question_id == "262148000"
    assert first.image_id == "262148"
    assert first.image == "images/val2014/COCO_val2014_000000262148.jpg"
    assert first.question == "What color is it?"
    assert first.answers == ("red",) * 10
    assert (first.answer_type, first.question_kind) == ("other", None)
    assert second.question_id == "262148001"


def test_the_images_own_name_and_kind_win(vqav2):
    questions, annotations = vqav2(
        [{"image_id": "s7", "question": "?", "question_id": "s7-1", "image": "s7.png"}],
        [{**annotation("s7-1"), "image_id": "s7", "question_kind": "colour"}],
    )
    (question,) = read_vqav2(questions, annotations, "images")
    assert (question.image, question.image_id, question.question_kind) == ("images/s7.png", "s7", "colour")


def test_the_template_of_image_names_can_be_given(vqav2):
    question = read_vqav2(*vqav2(), "val2017", image_name="{image_id:012d}.jpg")[0]
    assert question.image == "val2017/000000262148.jpg"


def test_an_image_id_that_is_no_number_needs_a_name(vqav2):
    questions, annotations = vqav2([{"image_id": "s7", "question": "?", "question_id": 1}])
    with pytest.raises(QuantrustError, match=r"q\.json: question 1: image_id 's7'"):
        read_vqav2(questions, annotations, "images")


def test_order_is_that_of_the_questions(vqav2):
    paths = vqav2(annotations=[annotation(262148001), annotation(262148000)])
    assert [question.question_id for question in read_vqav2(*paths, ".")] == ["262148000", "262148001"]


def test_a_question_without_references_names_file_and_question(vqav2, vizwiz):
    paths = vqav2(annotations=[annotation(262148000), annotation(262148001, [])])
    with pytest.raises(QuantrustError, match=r"a\.json: question 262148001: expected reference answers .* got none"):
        read_vqav2(*paths, ".")
    path = vizwiz([{"image": "x.jpg", "question": "?", "answers": []}])
    with pytest.raises(QuantrustError, match=r"v\.json: question x\.jpg: expected reference answers .* got none"):
        read_vizwiz(path, ".")


@pytest.mark.parametrize("count", [1, 9, 11])
def test_any_number_of_references_is_read(vqav2, vizwiz, count):
    paths = vqav2(annotations=[annotation(262148000), annotation(262148001, (ANSWERS * 2)[:count])])
    assert [len(question.answers) for question in read_vqav2(*paths, ".")] == [10, count]
    path = vizwiz([{"image": "x.jpg", "question": "?", "answers": (VIZWIZ_ANSWERS * 2)[:count]}])
    assert [len(question.answers) for question in read_vizwiz(path, ".")] == [count]


def test_a_question_without_annotation_is_named(vqav2):
    paths = vqav2(annotations=[annotation(262148000)])
    with pytest.raises(QuantrustError, match=r"a\.json: question 262148001: has no annotation"):
        read_vqav2(*paths, ".")


def test_an_annotation_without_question_is_named(vqav2):
    paths = vqav2(annotations=[annotation(262148000), annotation(262148001), annotation(5)])
    with pytest.raises(QuantrustError, match=r"a\.json: question 5: is annotated, but not asked"):
        read_vqav2(*paths, ".")


def test_duplicates_are_named(vqav2, vizwiz):
    paths = vqav2(annotations=[annotation(262148000), annotation(262148001), annotation("262148000")])
    with pytest.raises(QuantrustError, match=r"a\.json: question 262148000: occurs twice"):
        read_vqav2(*paths, ".")
    record = {"image": "x.jpg", "question": "?", "answers": VIZWIZ_ANSWERS}
    with pytest.raises(QuantrustError, match=r"v\.json: question x\.jpg: occurs twice"):
        read_vizwiz(vizwiz([record, record]), ".")


def test_another_image_in_the_annotation_is_named(vqav2):
    paths = vqav2(annotations=[annotation(262148000), {**annotation(262148001), "image_id": 3}])
    with pytest.raises(QuantrustError, match=r"a\.json: question 262148001: has image_id 3"):
        read_vqav2(*paths, ".")


@pytest.mark.parametrize("answer", ["red", {"text": "red"}, {"answer": 3}])
def test_a_malformed_reference_is_named(vqav2, answer):
    paths = vqav2(annotations=[annotation(262148000), annotation(262148001, [*ANSWERS[:9], answer])])
    with pytest.raises(QuantrustError, match=r"a\.json: question 262148001: expected reference answers"):
        read_vqav2(*paths, ".")


def test_vizwiz_as_published(vizwiz):
    (question,) = read_vizwiz(vizwiz(), "images/vizwiz")
    assert question.question_id == question.image_id == "VizWiz_val_00000000.jpg"
    assert question.image == "images/vizwiz/VizWiz_val_00000000.jpg"
    assert question.answer_type == "unanswerable"
    assert question.answers == ("unanswerable",) * 10


def test_vizwiz_questions_that_share_an_image_carry_their_own_identifier(vizwiz):
    record = {"image": "x.jpg", "question": "?", "answers": VIZWIZ_ANSWERS, "question_kind": "colour"}
    questions = read_vizwiz(vizwiz([{**record, "question_id": "x-0"}, {**record, "question_id": "x-1"}]), ".")
    assert [question.question_id for question in questions] == ["x-0", "x-1"]
    assert {question.image_id for question in questions} == {"x.jpg"}
    assert questions[0].question_kind == "colour"


def test_a_split_without_published_answers_says_so(vizwiz):
    path = vizwiz([{"image": "VizWiz_test_0.jpg", "question": "?"}])
    with pytest.raises(QuantrustError, match=r"v\.json: question VizWiz_test_0\.jpg: .*published"):
        read_vizwiz(path, ".")


def test_the_format_is_told_by_the_annotations(vqav2, vizwiz):
    assert read_official(*vqav2()) == read_vqav2(*vqav2(), None)
    path = vizwiz()
    assert read_official(path, path) == read_vizwiz(path, None)


def test_without_a_folder_of_images_any_image_id_will_do(vqav2):
    (question,) = read_official(*vqav2([{"image_id": "s7", "question": "?", "question_id": 1}]))
    assert (question.image_id, question.image) == ("s7", None)


def test_vizwiz_questions_must_match_the_annotations(vizwiz, tmp_path):
    path = vizwiz()
    (tmp_path / "vq.json").write_text(json.dumps([{"image": "other.jpg", "question": "?"}]))
    with pytest.raises(QuantrustError, match=r"v\.json: question other\.jpg: has no annotation"):
        read_official(tmp_path / "vq.json", path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"questions": [{"question_id": 1', r"bad\.json: is not valid JSON at line 1, column 33"),
        ("", r"bad\.json: is not valid JSON"),
        ('{"annotations": []}', r'bad\.json: expected a JSON object with the key "questions"'),
        ("[]", r"bad\.json: expected a JSON object"),
        ('{"questions": {}}', r"bad\.json: expected a list"),
        ('{"questions": [3]}', r"bad\.json: entry 1: expected an object"),
        ('{"questions": [{"question": "?"}]}', r'bad\.json: question number 1: .*"question_id"'),
        ('{"questions": [{"question_id": true}]}', r'bad\.json: question number 1: .*"question_id"'),
    ],
)
def test_a_malformed_file_is_named(vqav2, tmp_path, text, message):
    _, annotations = vqav2()
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(QuantrustError, match=message):
        read_vqav2(tmp_path / "bad.json", annotations, ".")


@pytest.mark.parametrize(
    ("text", "message"),
    [("1" * 5000, r"bad\.json: cannot be read"), ("[" * 100_000, r"bad\.json: is nested too deeply")],
)
def test_what_the_parser_gives_up_on_is_named(tmp_path, text, message):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(QuantrustError, match=message):
        read_json(tmp_path / "bad.json")


def test_a_device_is_refused_and_not_read():
    """It may have no end, as that of zeros."""
    with pytest.raises(QuantrustError, match=r"^/dev/zero: is a device or a socket; expected a JSON file$"):
        read_json("/dev/zero")


def test_a_path_that_no_file_can_have_is_named():
    with pytest.raises(QuantrustError, match="cannot be read"):
        read_json("a\0b.json")


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "marked.json").write_text('["é"]', encoding="utf-8-sig")
    assert read_json(tmp_path / "marked.json") == ["é"]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"question": "\ud800?"}, "question"),
        ({"answers": [*VIZWIZ_ANSWERS[:9], {"answer": "\ud800"}]}, "answer"),
        ({"answer_type": "\ud800"}, "answer_type"),
        ({"question_kind": "\ud800"}, "question_kind"),
        ({"question_id": "\ud800"}, "question_id"),
        ({"image": "\ud800.jpg"}, "image"),
    ],
)
def test_a_lone_surrogate_is_named(vizwiz, change, name):
    path = vizwiz([{"image": "x.jpg", "question": "?", "answers": VIZWIZ_ANSWERS} | change])
    with pytest.raises(QuantrustError, match=rf"v\.json: question .*: \"{name}\" is .*lone surrogate") as caught:
        read_vizwiz(path, None)
    str(caught.value).encode()


def test_a_file_without_questions_is_named(vqav2, tmp_path):
    for content, read in [
        ([], lambda path: read_vizwiz(path, "images")),
        ([], lambda path: read_official(path, path)),
        ({"questions": []}, lambda path: read_vqav2(path, vqav2()[1], "images")),
    ]:
        (tmp_path / "none.json").write_text(json.dumps(content))
        with pytest.raises(QuantrustError, match=r"none\.json: holds no questions; expected at least one"):
            read(tmp_path / "none.json")


def test_two_images_of_one_file_and_two_files_of_one_image_are_named(vqav2, vizwiz):
    def read(**second):
        questions = [{"question_id": 1, "image_id": "7", "question": "?"} | {"image": "7.jpg"}]
        questions.append({"question_id": 2, "question": "?"} | second)
        annotations = [{"question_id": k, "answers": ANSWERS} for k in (1, 2)]
        return read_vqav2(*vqav2(questions, annotations), "images")

    assert len(read(image_id=7, image="./7.jpg")) == 2
    with pytest.raises(
        QuantrustError, match=r"q\.json: question 2: its image 8 and the image 7 of question 1 are both"
    ):
        read(image_id=8, image="7.jpg")
    with pytest.raises(
        QuantrustError, match=r"q\.json: question 2: its image 7 is images/8\.jpg, but .* is images/7\.j"
    ):
        read(image_id=7, image="8.jpg")
    records = [{"image": name, "question": "?", "answers": VIZWIZ_ANSWERS} for name in ("a.jpg", "./a.jpg")]
    with pytest.raises(QuantrustError, match=r"v\.json: question \./a\.jpg: its image .* are both images/a\.jpg"):
        read_vizwiz(vizwiz(records), "images")


def test_two_numbers_that_the_template_names_alike_are_named(vqav2):
    questions = [{"question_id": k, "image_id": name, "question": "?"} for k, name in enumerate(["7", "007"])]
    annotations = [{"question_id": k, "answers": ANSWERS} for k in range(2)]
    with pytest.raises(QuantrustError, match=r"question 1: its image 007 and the image 7 of question 0 are both"):
        read_vqav2(*vqav2(questions, annotations), "images")


@pytest.mark.parametrize(
    "template",
    ["{image_id:99999999999999d}.jpg", "{image_id:100d}", "{image_id.__class__}", "{image_id!r}", "{0}", "{"],
)
def test_a_template_that_names_no_file_is_refused(vqav2, template):
    with pytest.raises(QuantrustError, match=r"is not a file name with \{image_id\} in it"):
        read_vqav2(*vqav2(), "images", template)


@pytest.mark.parametrize("template", ["{image_id}", "{image_id:d}", "x_{image_id:012d}.jpg", "{image_id:6}.png"])
def test_a_template_with_a_width_names_files(vqav2, template):
    assert read_vqav2(*vqav2(), "i", template)[0].image == f"i/{template.format(image_id=262148)}"


def test_the_schema_of_the_config_knows_the_template_too():
    schema = yaml.safe_load(SCHEMA.read_text())
    described = schema["properties"]["datasets"]["additionalProperties"]["properties"]["image_name"]
    assert described["pattern"] == IMAGE_NAME_PATTERN and described["description"] == IMAGE_NAMES


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(QuantrustError, match=r"none\.json: no such file"):
        read_json(tmp_path / "none.json")


def test_a_file_that_is_not_text_is_named(tmp_path):
    (tmp_path / "bytes.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(QuantrustError, match=r"bytes\.json: is not UTF-8"):
        read_json(tmp_path / "bytes.json")
