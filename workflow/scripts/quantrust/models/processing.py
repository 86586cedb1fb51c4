"""Parts of a processor, loaded from a model folder and checked: one that is missing is an error, never a fallback."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from transformers.image_processing_base import ImageProcessingMixin

from quantrust.errors import QuantrustError
from quantrust.files import read_object
from quantrust.models.image_settings import faults_of_settings
from quantrust.models.named_errors import blaming

CHAT_TEMPLATE = "chat_template.jinja"
REPAIR = "correct the file, or get it again"
DEFAULT_TEMPLATE = "default"
"""What the one that is used is called, where there are several."""
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
    with blaming(f"{path}: no tokenizer can be made of it and the files beside it", "get them again"):
        try:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left")
        except Exception:
            # a file that is not JSON can be named
            for file in (path, path.with_name("tokenizer_config.json")):
                if file.is_file():
                    read_object(file)
            raise
    if tokenizer.pad_token_id is None:
        raise QuantrustError(f"{path}: the tokenizer has no padding token; set pad_token in tokenizer_config.json")
    return tokenizer


def load_chat_template(folder: str | Path, default: str | None = None) -> str:
    """Return the chat template of a model folder, from whichever of the published places holds it.

    Of several templates with names, as a list or a map, that with the name `default` is taken, as the library does.

    Parameters
    ----------
    folder : str or Path
    default : str or None
        What is returned where there is none.

    Raises
    ------
    QuantrustError
        If there is none and no default, it is empty or no text, or none of several is the default.
    """
    folder = Path(folder)
    if (path := folder / CHAT_TEMPLATE).is_file():
        try:
            return _one_template(path, path.read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise QuantrustError(f"{path}: is not UTF-8 text at byte {error.start}; get the file again") from None
    for name in ("chat_template.json", PROCESSOR, "tokenizer_config.json"):
        if (path := folder / name).is_file():
            template = read_object(path).get("chat_template")
            if template is not None:
                return _one_template(path, template)
    if default is not None:
        return default
    raise QuantrustError(
        f"{folder} holds no chat template: expected chat_template.jinja, chat_template.json, or the key "
        "chat_template in processor_config.json or tokenizer_config.json"
    )


def _one_template(path: Path, found: Any) -> str:
    """Return the one of the templates in a file that is used."""
    template = found
    if isinstance(found, list):
        named = [entry for entry in found if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
        if len(named) != len(found):
            raise QuantrustError(
                f"{path}: chat_template is a list whose entries were expected to have a name and a template each; get "
                "the file again"
            )
        found = {entry["name"]: entry.get("template") for entry in named}
    if isinstance(found, dict):
        if DEFAULT_TEMPLATE not in found:
            raise QuantrustError(
                f"{path}: holds the chat templates {', '.join(sorted(found)) or '(none)'}, none of them called "
                f"{DEFAULT_TEMPLATE}; put the one that is meant in a file and name it as models.<name>.chat_template"
            )
        template = found[DEFAULT_TEMPLATE]
    if not isinstance(template, str) or not template.strip():
        what = "empty" if isinstance(template, str) else f"no text ({type(template).__name__})"
        raise QuantrustError(f"{path}: the chat template is {what}; give the model another chat_template")
    return template


def load_image_processor(image_processor_class: type[ImageProcessingMixin], folder: str | Path) -> ImageProcessingMixin:
    """Load the image processor of a model folder.

    Raises
    ------
    QuantrustError
        If the folder does not describe one, or with values that none has.
    """
    path, _ = _image_processor_file(Path(folder))
    with blaming(f"{path}: describes no {image_processor_class.__name__}", REPAIR):
        processor = image_processor_class.from_pretrained(folder)
    for fault in faults_of_settings(processor):
        raise QuantrustError(f"{path}: {fault}: {REPAIR}")
    return processor


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
            if not isinstance(content["image_processor"], dict):
                raise QuantrustError(f"{path}: image_processor holds no object; get the file again")
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
