"""COCO captions: one item an image, with all its captions as references."""

import json

import pytest

from quantrust.data.format import load_format, recognised
from quantrust.data.official import Files
from quantrust.data.questions import read_part
from quantrust.errors import QuantrustError

# In the form of the published captions_val2017.json.
CONTENT = {
    "info": {"description": "COCO 2017 Dataset", "version": "1.0", "year": 2017},
    "licenses": [{"id": 4, "name": "Attribution License"}],
    "images": [
        {"license": 4, "file_name": "000000397133.jpg", "height": 427, "width": 640, "id": 397133},
        {"license": 4, "file_name": "000000037777.jpg", "height": 230, "width": 352, "id": 37777},
    ],
    "annotations": [
        {"image_id": 37777, "id": 40, "caption": "A kitchen."},
        {"image_id": 397133, "id": 38, "caption": "A man cooks."},
        {"image_id": 397133, "id": 41, "caption": "Someone in a restaurant."},
    ],
}


def read(tmp_path, content, name="coco_captions", **files):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(content))
    return load_format(name).read(Files(path, **files))


def test_coco_captions_as_published(tmp_path):
    first, second = read(tmp_path, CONTENT, images="i", instruction="Describe it.")
    assert (first.question_id, first.image_id, first.image) == ("397133", "397133", "i/000000397133.jpg")
    assert (first.question, first.answers) == ("Describe it.", ("A man cooks.", "Someone in a restaurant."))
    assert (second.question_id, second.answers, second.answer_type) == ("37777", ("A kitchen.",), None)


def test_nothing_is_asked_without_an_instruction(tmp_path):
    read(tmp_path, CONTENT)
    items = read_part("d", {"format": "coco_captions", "annotations": tmp_path / "captions.json"})
    assert [item.question for item in items] == ["", ""]


def test_captions_of_scenes_are_told_apart_by_what_the_file_says(tmp_path):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(CONTENT))
    assert recognised(Files(path)) == "coco_captions"
    path.write_text(json.dumps(CONTENT | {"info": {"facts": True}}))
    assert recognised(Files(path)) == "scene_captions"
    assert {item.question for item in load_format("scene_captions").read(Files(path))} == {"describe the picture."}


def changed(**parts):
    return CONTENT | parts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r'captions\.json: expected a JSON object with the key "images", as in the COCO captions release'),
        ({"images": []}, "holds no questions"),
        ({"images": CONTENT["images"]}, 'the key "annotations"'),
        (changed(images=CONTENT["images"][:1]), "annotation number 1: is a caption of the image 37777, which is not"),
        (changed(images=[CONTENT["images"][0]] * 2), "question 397133: occurs twice"),
        (changed(annotations=CONTENT["annotations"][1:]), "question 37777: has no caption"),
        (changed(annotations=[{"image_id": 37777}]), 'annotation number 1: expected a string in "caption"'),
        (changed(images=[{"id": 1}]), 'expected a string in "file_name"|is a caption of the image'),
        (changed(images=[{"file_name": "a.jpg"}]), r"captions\.json: image number 1: .*id"),
        (
            changed(images=[{"id": 397133, "file_name": "a.jpg"}, {"id": 37777, "file_name": "a.jpg"}]),
            "expected a file for each image",
        ),
        (changed(images=[{"id": 397133, "file_name": "../a.jpg"}, CONTENT["images"][1]]), "leads out of its folder"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, content, message):
    with pytest.raises(QuantrustError, match=message):
        read(tmp_path, content, images="i")
