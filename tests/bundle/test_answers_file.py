"""The command for many items: what it reads, what it writes, and how it goes on after it was stopped."""

import json

import pytest

from quantrust.bundle.answers_file import answer_items
from quantrust.bundle.items import Item
from quantrust.bundle.items_file import read_items
from quantrust.errors import QuantrustError


@pytest.fixture(scope="module")
def items(bundled_study):
    """The test split, with a missing picture among the others."""
    rows = bundled_study.test_questions().select("image", "question", "question_id").iter_rows()
    good = [Item(*row) for row in rows]
    return [*good[:5], Item("absent.png", "is it?", "absent"), *good[5:]]


@pytest.fixture(scope="module")
def expected(bundle, bundle_folder, items, tmp_path_factory):
    """The file of a run that nothing stopped."""
    path = tmp_path_factory.mktemp("answers") / "a.jsonl"
    answer_items(bundle, bundle_folder, items, path)
    return path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_item_has_its_line_in_order_and_one_bad_picture_is_an_error(bundled_study, bundle, items, expected):
    found = lines(expected)
    assert [line["id"] for line in found] == [item.item_id for item in items]
    assert found[5]["error"] == "image absent.png: no such file"
    good = [line for line in found if "error" not in line]
    assert [line["confidence"] for line in good] == bundled_study.scores()["maxprob"].to_list()
    threshold = bundle.record.point().threshold
    assert all(line["answered"] == (line["confidence"] >= line["threshold"]) for line in good)
    assert {line["threshold"] for line in good} == {threshold}
    assert sorted(path.name for path in expected.parent.iterdir()) == ["a.jsonl"]


@pytest.mark.parametrize("cut", [0, 1, 300, 3000, 5000, -1])
def test_a_run_that_was_killed_in_the_middle_of_a_line_goes_on_to_the_same_bytes(
    bundle, bundle_folder, items, expected, tmp_path, cut
):
    path = tmp_path / "a.jsonl"
    (tmp_path / "a.jsonl.unfinished").write_bytes(expected.read_bytes()[:cut])

    answer_items(bundle, bundle_folder, items, path)

    assert path.read_bytes() == expected.read_bytes()


def test_what_is_answered_is_not_answered_again(bundle, bundle_folder, items, expected, monkeypatch):
    before = expected.read_bytes()
    monkeypatch.setattr(bundle, "answer_chunk", None)

    counts = answer_items(bundle, bundle_folder, items, expected)

    assert counts.failed == 1
    assert counts.answered + counts.abstained == len(items) - 1
    assert expected.read_bytes() == before


def test_lines_of_another_run_are_kept_from_being_mixed_in(bundle, bundle_folder, items, expected, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(expected.read_bytes())
    with pytest.raises(QuantrustError, match="another operating point"):
        answer_items(bundle, bundle_folder, items, path, risk=0.05)
    with pytest.raises(QuantrustError, match="of other items"):
        answer_items(bundle, bundle_folder, items[:3], path)
    for written, message in (("no answers\n", "line 1: is not valid JSON"), ("[]\n", "line 1 is no answer")):
        path.write_text(written)
        with pytest.raises(QuantrustError, match=message):
            answer_items(bundle, bundle_folder, items, path)
        assert path.read_text() == written


def test_questions_about_a_picture_are_answered_together_wherever_they_stand(
    bundled_study, bundle, bundle_folder, items, tmp_path
):
    """Three passes over the pictures, as official files have it."""
    good = [item for item in items if item.item_id != "absent"]
    apart = good[::3] + good[1::3] + good[2::3]

    answer_items(bundle, bundle_folder, apart, tmp_path / "a.jsonl")

    confidences = {line["id"]: line["confidence"] for line in lines(tmp_path / "a.jsonl")}
    for row in bundled_study.scores().iter_rows(named=True):
        assert confidences[row["question_id"]] == pytest.approx(row["maxprob"], abs=1e-6)


def test_items_are_read_from_lines_csv_and_official_questions(tmp_path):
    rows = [{"image": "a.png", "question": "is it?", "id": 7}, {"image": "b.png", "question": 'a "b", c?'}]
    (tmp_path / "i.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    (tmp_path / "i.csv").write_text('question,image,id\nis it?,a.png,7\n"a ""b"", c?",b.png,\n')
    official = {"questions": [{"question_id": 7, "image_id": 3, "question": "is it?"}]}
    (tmp_path / "i.json").write_text(json.dumps(official))

    expected = [Item(str(tmp_path / "a.png"), "is it?", "7"), Item(str(tmp_path / "b.png"), 'a "b", c?', "2")]
    assert read_items(tmp_path / "i.jsonl") == expected
    assert read_items(tmp_path / "i.csv") == expected
    with pytest.raises(QuantrustError, match="val2014: no such folder"):
        read_items(tmp_path / "i.json", tmp_path / "val2014")
    (tmp_path / "val2014").mkdir()
    (item,) = read_items(tmp_path / "i.json", tmp_path / "val2014")
    assert item == Item(str(tmp_path / "val2014" / "COCO_val2014_000000000003.jpg"), "is it?", "7")


def test_items_of_a_bundle_for_captions_need_no_question(tmp_path):
    (tmp_path / "i.jsonl").write_text('{"image": "a.png"}\n{"image": "b.png"}\n')
    (tmp_path / "i.csv").write_text("image,question\na.png,\nb.png,describe it.\n")
    expected = [Item(str(tmp_path / f"{name}.png"), "describe it.", str(row)) for row, name in ((1, "a"), (2, "b"))]
    assert read_items(tmp_path / "i.jsonl", asked="describe it.") == expected
    assert read_items(tmp_path / "i.csv", asked="describe it.") == expected
    captions = [{"id": 3, "image_id": 7, "caption": "a cat"}, {"id": 4, "image_id": 7, "caption": "a black cat"}]
    official = {"images": [{"id": 7, "file_name": "c.png"}], "annotations": captions}
    (tmp_path / "i.json").write_text(json.dumps(official))
    (item,) = read_items(tmp_path / "i.json", tmp_path, asked="describe it.")
    assert (item.item_id, item.question) == ("7", "describe it.")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("i.txt", "", "expected a file whose name ends in"),
        ("i.jsonl", "", "holds no"),
        ("i.jsonl", "{", "line 1: is not valid JSON"),
        ("i.jsonl", "[]", "line 1: is []"),
        ("i.jsonl", '{"image": "a.png"}', "has no column 'question'"),
        ("i.jsonl", '{"image": "a.png", "question": 7}', 'line 1: expected a string in "question"'),
        ("i.jsonl", '{"image": "a", "question": "b", "id": 1}\n' * 2, "the id '1' occurs twice"),
        ("i.csv", "image\na.png\n", "has no column 'question'"),
        ("i.json", '{"questions": []}', "give it with --images"),
    ],
)
def test_a_faulty_file_of_items_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(QuantrustError) as raised:
        read_items(tmp_path / name)
    assert message in str(raised.value)
    with pytest.raises(QuantrustError):
        read_items(tmp_path / "absent.jsonl")
