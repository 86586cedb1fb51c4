"""Parts of a processor, loaded from a model folder and checked: one that is missing is an error, never a fallback."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.image_processing_base import ImageProcessingMixin

from quantrust.errors import QuantrustError
from quantrust.files import read_object

CHAT_TEMPLATE = "chat_template.jinja"
IMAGE_PROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """Load `tokenizer.json` with left padding.

    Raises
    ------
    QuantrustError
        If the file is missing or damaged, or the tokenizer has no padding token.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise QuantrustError(f"{path} is missing: a model folder needs a fast tokenizer; save it with the model")
    try:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left")
    # the library and its tokenizers raise what they like, bare exceptions among it, and do not name the file
    except Exception as error:
        for file in (path, path.with_name("tokenizer_config.json")):
            if file.is_file():
                read_object(file)
        raise QuantrustError(f"{path}: no tokenizer can be made of it ({error}); get the file again") from error
    if tokenizer.pad_token_id is None:
        raise QuantrustError(f"{path}: the tokenizer has no padding token; set pad_token in tokenizer_config.json")
    return tokenizer


def load_chat_template(folder: str | Path) -> str:
    """Return the chat template of a model folder, from whichever of the three published places holds it.

    Raises
    ------
    QuantrustError
        If there is none.
    """
    folder = Path(folder)
    if (path := folder / CHAT_TEMPLATE).is_file():
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", PROCESSOR, "tokenizer_config.json"):
        if (path := folder / name).is_file():
            template = read_object(path).get("chat_template")
            if template:
                return template
    raise QuantrustError(
        f"{folder} holds no chat template: expected chat_template.jinja, chat_template.json, or the key "
        "chat_template in processor_config.json or tokenizer_config.json"
    )


def load_image_processor(image_processor_class: type[ImageProcessingMixin], folder: str | Path) -> ImageProcessingMixin:
    """Load the image processor of a model folder.

    Raises
    ------
    QuantrustError
        If the folder does not describe one.
    """
    _image_processor_file(Path(folder))
    return image_processor_class.from_pretrained(folder)


def override_processor(folder: str | Path, settings: Mapping[str, Any]) -> None:
    """Write settings over those of a model folder's image processor.

    Parameters
    ----------
    folder : str or Path
        The file in it that describes the image processor is changed.
    settings : mapping
        By the names of `preprocessor_config.json`; maps are merged.

    Raises
    ------
    QuantrustError
        If the folder does not describe an image processor.
    """
    path, content = _image_processor_file(Path(folder))
    described = content["image_processor"] if path.name == PROCESSOR else content
    _merge(described, settings)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _image_processor_file(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the file that the library takes the image processor from, and its content."""
    # the newer layout nests it, and goes before the older one
    if (path := folder / PROCESSOR).is_file():
        content = read_object(path)
        if "image_processor" in content:
            return path, content
    if (path := folder / IMAGE_PROCESSOR).is_file():
        return path, read_object(path)
    raise QuantrustError(
        f"{folder / IMAGE_PROCESSOR} is missing: a model folder must describe its image processor; get the file and "
        "put it there"
    )


def _merge(content: dict[str, Any], settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if isinstance(value, Mapping) and isinstance(content.get(key), dict):
            _merge(content[key], value)
        else:
            content[key] = value
