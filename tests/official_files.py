"""Datasets of drawn pictures in the official layouts: VQAv2 and AdVQA with COCO's names, VizWiz, ShareGPT4V's captions.

Keys and names are those of the published files. Answers are a person's who saw the drawing, and nine others' of whom
some differ.
"""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from published_layout import SHAPES_DRAWN

COLORS = ("red", "blue", "green", "yellow")
NUMBERS = ("one", "two", "three", "four")


@dataclass(frozen=True)
class Drawing:
    """What a picture shows: so many shapes of one kind and color on a background."""

    shape: str
    color: str
    count: int
    background: tuple[int, int, int]
    size: tuple[int, int]


def draw(path: Path, seed: int) -> Drawing:
    """Draw a picture of 48 to 640 pixels a side and return what it shows; the name's ending is the format."""
    rng = random.Random(seed)
    drawing = Drawing(
        shape=rng.choice(SHAPES_DRAWN),
        color=rng.choice(COLORS),
        count=rng.randint(1, len(NUMBERS)),
        background=tuple(rng.randint(0, 255) for _ in range(3)),
        size=(rng.randint(48, 640), rng.randint(48, 640)),
    )
    picture = Image.new("RGB", drawing.size, drawing.background)
    pen = ImageDraw.Draw(picture)
    width, height = drawing.size
    side = min(width // drawing.count, height) // 2
    for k in range(drawing.count):
        left, top = k * width // drawing.count, rng.randint(0, height - side)
        box = (left, top, left + side, top + side)
        if drawing.shape == "circle":
            pen.ellipse(box, fill=drawing.color)
        elif drawing.shape == "triangle":
            pen.polygon([(left, top), (left + side, top), (left, top + side)], fill=drawing.color)
        else:
            pen.rectangle(
                (left, top, left + side, top + side // (1 if drawing.shape == "square" else 4)), drawing.color
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return drawing


def ask(drawing: Drawing, rng: random.Random) -> tuple[str, str, str]:
    """Return a question about a drawing, its answer and the answer's type."""
    color, shape = rng.choice(COLORS), rng.choice(SHAPES_DRAWN)
    return rng.choice(
        [
            (f"What color is the {drawing.shape}?", drawing.color, "other"),
            ("How many shapes are there?", NUMBERS[drawing.count - 1], "number"),
            (f"Is it {color}?", "yes" if color == drawing.color else "no", "yes/no"),
            (f"Is there a {color} {shape} in the picture?", _agree(drawing, color, shape), "yes/no"),
        ]
    )


def write_vqav2(
    questions: Path, annotations: Path, images: Path, image_ids: Sequence[int], each: int, seed: int
) -> None:
    """Write questions, annotations and pictures as VQAv2 and AdVQA are published.

    Parameters
    ----------
    questions, annotations : Path
        Files to write.
    images : Path
        Folder of the pictures, which have COCO's names; one that is there is asked about as it is.
    image_ids : sequence of int
        Their numbers, from which they are drawn.
    each : int
        Questions about each picture.
    seed : int
        Of the questions.
    """
    rng = random.Random(seed)
    asked, answered = [], []
    for image_id in image_ids:
        drawing = draw(images / f"COCO_val2014_{image_id:012d}.jpg", image_id)
        for k in range(each):
            question, answer, kind = ask(drawing, rng)
            key = {"image_id": image_id, "question_id": image_id * 1000 + k}
            asked.append({**key, "question": question})
            references = [{**reference, "answer_id": j + 1} for j, reference in enumerate(_references(answer, rng))]
            answered.append(
                {
                    **key,
                    "question_type": " ".join(question.lower().split()[:2]),
                    "multiple_choice_answer": answer,
                    "answers": references,
                    "answer_type": kind,
                }
            )
    about = {"info": {"version": "2.0"}, "license": {}, "data_type": "mscoco", "data_subtype": "val2014"}
    _write_json(questions, {**about, "task_type": "Open-Ended", "questions": asked})
    _write_json(annotations, {**about, "annotations": answered})


def write_vizwiz(annotations: Path, images: Path, count: int, seed: int) -> None:
    """Write annotations and as many pictures, one question each, as VizWiz is published; every tenth is a PNG."""
    rng = random.Random(seed)
    records = []
    for number in range(count):
        name = f"VizWiz_val_{number:08d}.{'png' if number % 10 == 9 else 'jpg'}"
        question, answer, kind = ask(draw(images / name, seed * count + number), rng)
        if answerable := rng.random() < 0.8:
            references = _references(answer, rng)
        else:
            kind, references = "unanswerable", _references("unanswerable", rng)
        records.append(
            {
                "image": name,
                "question": question,
                "answers": references,
                "answer_type": kind,
                "answerable": int(answerable),
            }
        )
    _write_json(annotations, records)


def write_captions(captions: Path, images: Path, paths: Iterable[str], seed: int) -> None:
    """Write captions in the format of ShareGPT4V and the pictures that they name by these paths."""
    rng = random.Random(seed)
    records = []
    for path in paths:
        drawing = draw(images / path, rng.randrange(2**32))
        number = NUMBERS[drawing.count - 1]
        caption = f"It shows {number} shape on the left, a {drawing.shape} of {drawing.color}, before a background."
        turns = [("human", "Describe the picture.\n<image>"), ("gpt", caption)]
        conversations = [{"from": speaker, "value": value} for speaker, value in turns]
        records.append({"id": Path(path).stem, "image": path, "conversations": conversations})
    _write_json(captions, records)


def _agree(drawing: Drawing, color: str, shape: str) -> str:
    return "yes" if (color, shape) == (drawing.color, drawing.shape) else "no"


def _references(answer: str, rng: random.Random) -> list[dict[str, str]]:
    """Return the answer once, and nine times the answer or, now and then, another."""
    others = [answer if rng.random() < 0.7 else rng.choice((*COLORS, *NUMBERS, "yes", "no")) for _ in range(9)]
    confidence = ("yes", "maybe", "no")
    return [{"answer": text, "answer_confidence": rng.choice(confidence)} for text in (answer, *others)]


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
