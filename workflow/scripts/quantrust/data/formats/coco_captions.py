"""COCO captions (Chen et al., 2015): a JSON object with a list of images and one of annotations, a caption each.

An image has ``id`` and ``file_name``, and an annotation ``image_id`` and ``caption``. An image with its captions is one
item, whose identifier is the image's. What is asked about every image is not in the file: the config says it.
"""

from pathlib import Path
from typing import Any

from quantrust.data.format import Asked, Format
from quantrust.data.formats.flickr30k import has_sentences
from quantrust.data.official import (
    Files,
    Question,
    each_image_one_file,
    image_file,
    list_under,
    occurs_twice,
    place_of,
    some_questions,
)
from quantrust.data.texts import identifier, text
from quantrust.errors import QuantrustError
from quantrust.files import read_json


def _images(parsed: Any, path: str | Path) -> dict[str, dict[str, Any]]:
    """Return the images by their identifiers, in the order of the file."""
    images: dict[str, dict[str, Any]] = {}
    for position, record in enumerate(list_under(parsed, "images", path, "COCO captions")):
        image_id = identifier(record.get("id"), "id", f"{path}: image number {position + 1}")
        if image_id in images:
            raise occurs_twice(path, image_id)
        images[image_id] = record
    some_questions(images, path)
    return images


def read_coco_captions(files: Files) -> list[Question]:
    """Read images with their captions.

    Raises
    ------
    QuantrustError
        If the file is not of the format or has no images, an image occurs twice, two images have one file, a caption is
        of an image that is not listed, or an image has no caption. The message names file and image.
    """
    path = files.annotations
    images = _images(files.annotated, path)
    captions: dict[str, list[str]] = {image_id: [] for image_id in images}
    for position, record in enumerate(list_under(files.annotated, "annotations", path, "COCO captions")):
        where = f"{path}: annotation number {position + 1}"
        image_id = identifier(record.get("image_id"), "image_id", where)
        if image_id not in captions:
            raise QuantrustError(
                f"{where}: is a caption of the image {image_id}, which is not among the images of the file; get the "
                "file again, or take the caption out"
            )
        captions[image_id].append(text(record.get("caption"), "caption", where))
    result = []
    for image_id, record in images.items():
        where = place_of(path, image_id)
        if not captions[image_id]:
            raise QuantrustError(
                f'{where}: has no caption among "annotations"; use a split whose captions are published'
            )
        result.append(
            Question(
                question_id=image_id,
                image_id=image_id,
                image=image_file(files, text(record.get("file_name"), "file_name", where), where),
                question=files.instruction or "",
                answers=tuple(captions[image_id]),
                answer_type=None,
                question_kind=None,
            )
        )
    return each_image_one_file(result, path)


def _listed(path: str | Path) -> list[Asked]:
    return [Asked(image_id, image_id) for image_id in _images(read_json(path), path)]


def has_captions(annotations: Any) -> bool:
    """Return whether a parsed annotations file seems to hold captions of images."""
    return isinstance(annotations, dict) and isinstance(annotations.get("images"), list)


def _recognises(annotations: Any) -> bool:
    return has_captions(annotations) and not judged_by_facts(annotations) and not has_sentences(annotations)


def judged_by_facts(annotations: Any) -> bool:
    """Return whether a parsed file says that its captions are those of the embedded scenes."""
    info = annotations.get("info") if isinstance(annotations, dict) else None
    return isinstance(info, dict) and info.get("facts") is True


FORMAT = Format(
    task="captioning",
    parts=("annotations",),
    read=read_coco_captions,
    listed=_listed,
    recognises=_recognises,
    may_be_mute=True,
    groupings=(),
)
