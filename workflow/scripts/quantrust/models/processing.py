"""Parts of a processor, loaded from a model folder and checked: one that is missing is an error, never a fallback."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from quantrust.errors import QuantrustError


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """Load `tokenizer.json` with left padding.

    Raises
    ------
    QuantrustError
        If the file is missing or the tokenizer has no padding token.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise QuantrustError(f"{path} is missing: a model folder needs a fast tokenizer; save it with the model")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left")
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
    if (path := folder / "chat_template.jinja").is_file():
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        if (path := folder / name).is_file():
            template = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
            if template:
                return template
    raise QuantrustError(
        f"{folder} holds no chat template: expected chat_template.jinja, chat_template.json, or the key "
        "chat_template in processor_config.json or tokenizer_config.json"
    )
