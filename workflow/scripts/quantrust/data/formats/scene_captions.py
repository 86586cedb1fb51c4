"""Captions of the embedded scenes: the COCO captions format, with ``"facts": true`` under ``info``.

Such captions are judged by the facts that they state (`quantrust.tasks.scene_captioning`).
"""

from dataclasses import replace

from quantrust.data.format import Format
from quantrust.data.formats import coco_captions
from quantrust.data.official import Files, Question

INSTRUCTION = "describe the picture."
"""What the embedded models are asked for where they are to write a caption."""


def _read(files: Files) -> list[Question]:
    return coco_captions.read_coco_captions(replace(files, instruction=files.instruction or INSTRUCTION))


FORMAT = Format(
    task="scene_captioning",
    parts=("annotations",),
    read=_read,
    listed=coco_captions.FORMAT.listed,
    recognises=coco_captions.judged_by_facts,
    groupings=(),
)
