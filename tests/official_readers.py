"""Reading official files by their paths, as tests name them."""

from pathlib import Path

from quantrust.data import format as formats
from quantrust.data.official import Files, Question


def read_vqav2(
    questions: str | Path, annotations: str | Path, images: str | Path | None, image_name: str | None = None
) -> list[Question]:
    """Read a pair of files in the VQAv2 format."""
    return formats.load_format("vqav2").read(Files(annotations, questions, images, image_name))


def read_vizwiz(annotations: str | Path, images: str | Path | None) -> list[Question]:
    """Read a file in the VizWiz format."""
    return formats.load_format("vizwiz").read(Files(annotations, images=images))


def read_official(questions: str | Path | None, annotations: str | Path) -> list[Question]:
    """Read files of whichever format they look like, without images."""
    files = Files(annotations, questions)
    return formats.read_official(formats.recognised(files), files)
