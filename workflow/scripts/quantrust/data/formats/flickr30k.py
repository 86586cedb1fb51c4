"""Flickr30k as Karpathy and Fei-Fei (CVPR 2015) published it: a JSON object with a list of images and their sentences.

An image has ``filename``, ``split`` and ``sentences``, each with the caption in ``raw``. The file name is the
identifier of the image, and ``<file name>#<place>`` that of a caption, as in Flickr30k's own list of captions. The file
holds all splits; `subset` chooses one of them by the name that it has there.
"""

from pathlib import Path
from typing import Any

from quantrust.data.format import Asked, Format
from quantrust.data.official import (
    Files,
    Question,
    each_image_one_file,
    image_file,
    list_of_objects,
    list_under,
    occurs_twice,
    place_of,
    some_questions,
)
from quantrust.data.queries import compared_text, queries_of, repeated_captions
from quantrust.data.texts import identifier, shown, text
from quantrust.errors import QuantrustError
from quantrust.files import read_json

RELEASE = "Flickr30k"


def _images(parsed: Any, path: str | Path, subset: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the images of a subset, or all, by the names of their files, in the order of the file."""
    records = list_under(parsed, "images", path, RELEASE)
    some_questions(records, path)
    images: dict[str, dict[str, Any]] = {}
    names: set[str] = set()
    for position, record in enumerate(records):
        where = f"{path}: image number {position + 1}"
        name = identifier(text(record.get("filename"), "filename", where), "filename", where)
        if subset is not None:
            names.add(split := text(record.get("split"), "split", where))
            if split != subset:
                continue
        if name in images:
            raise occurs_twice(path, name)
        images[name] = record
    if not images:
        raise QuantrustError(
            f"{path}: has no images of the split {shown(subset)}; expected one of {', '.join(sorted(names))}"
        )
    return images


def _captions(record: dict[str, Any], name: str, where: str) -> dict[str, str]:
    sentences = record.get("sentences")
    if not isinstance(sentences, list) or not sentences:
        raise QuantrustError(f'{where}: expected captions in "sentences", got none; take the image out')
    captions = {}
    for place, sentence in enumerate(list_of_objects(sentences, where)):
        caption = text(sentence.get("raw"), "raw", f"{where}: sentence {place + 1}")
        if not compared_text(caption):
            raise QuantrustError(f"{where}: sentence {place + 1} is {shown(caption)}; expected a caption with a word")
        if sentence.get("imgid") != record.get("imgid") and "imgid" in sentence:
            raise QuantrustError(
                f"{where}: sentence {place + 1} is a caption of the image {shown(sentence['imgid'])}, but stands with "
                f"the image {shown(record.get('imgid'))}; get the file again, or take the caption out"
            )
        captions[f"{name}#{place}"] = caption
    return captions


def _read(files: Files) -> list[Question]:
    path = files.annotations
    queries = []
    for name, record in _images(files.annotated, path, files.subset).items():
        where = place_of(path, name)
        queries += queries_of(name, image_file(files, name, where), _captions(record, name, where))
    return each_image_one_file(queries, path)


def _listed(path: str | Path) -> list[Asked]:
    asked = []
    for name, record in _images(read_json(path), path).items():
        captions = _captions(record, name, place_of(path, name))
        asked += [Asked(query.question_id, name) for query in queries_of(name, None, captions)]
    return asked


def has_sentences(annotations: Any) -> bool:
    """Return whether a parsed file seems to hold images with sentences."""
    images = annotations.get("images") if isinstance(annotations, dict) else None
    return isinstance(images, list) and any(isinstance(image, dict) and "sentences" in image for image in images[:1])


FORMAT = Format(
    task="retrieval",
    parts=("annotations",),
    read=_read,
    listed=_listed,
    recognises=has_sentences,
    may_be_mute=True,
    has_subsets=True,
    groupings=("question_kind",),
    note=repeated_captions,
)
