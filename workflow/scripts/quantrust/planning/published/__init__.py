"""Facts of published models, with which a study of them is planned before any of their files are there.

Numbers are those of the files that a model is published with; what stands for its tokenizer here has a token for every
byte, so that prompts are longer in a resource plan than in the study. Shapes give the size of all weights to the byte.
Each family has a module of its own, which ends in a map, `MODELS`.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from quantrust.named_modules import PUBLISHED_MODELS, load_module, module_names


@dataclass(frozen=True)
class PublishedModel:
    """What a model is published as.

    Attributes
    ----------
    config, preprocessor : dict
        Of `config.json` and `preprocessor_config.json` what shapes and pictures depend on.
    template : str
        A chat template that gives the same turns as the published one.
    special : tuple of str
        Special tokens of a prompt; the first one pads, and the last one stands for an image, unless the model matches
        images with texts.
    companions : int
        Bytes of the files that are not weights, most of them the tokenizer's: about as many.
    tokenizer : dict
        Of `tokenizer_config.json` what the processor reads beside the token that pads.
    matches : bool
        Whether the model matches images with texts, which have no place for an image.
    """

    config: dict[str, Any]
    preprocessor: dict[str, Any]
    template: str
    special: tuple[str, ...]
    companions: int
    tokenizer: dict[str, Any] = field(default_factory=dict)
    matches: bool = False

    def write_files(self, folder: str | Path) -> None:
        """Write the files that a resource plan reads to a folder that is there."""
        tokenizer = Tokenizer(models.BPE({byte: k for k, byte in enumerate(sorted(_BYTES))}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(list(self.special))
        tokenizer.save(str(Path(folder) / "tokenizer.json"))
        key = image_token_key(self.config)
        image = None if self.matches else tokenizer.token_to_id(self.special[-1])
        for name, content in (
            ("config.json", self.config | {key: image}),
            ("preprocessor_config.json", self.preprocessor),
            (
                "tokenizer_config.json",
                {"pad_token": self.special[0], "tokenizer_class": "PreTrainedTokenizerFast", **self.tokenizer},
            ),
        ):
            (Path(folder) / name).write_text(json.dumps(content), encoding="utf-8")
        (Path(folder) / "chat_template.jinja").write_text(self.template, encoding="utf-8")


def image_token_key(config: dict[str, Any]) -> str:
    """Return what a `config.json` calls the id of the token that stands for an image."""
    return "image_token_index" if "image_token_index" in config else "image_token_id"


_BYTES = pre_tokenizers.ByteLevel.alphabet()


def published_models() -> dict[str, PublishedModel]:
    """Return what is known of published models, by their repository on the hub."""
    return {
        repository: model
        for family in module_names(PUBLISHED_MODELS)
        for repository, model in load_module(PUBLISHED_MODELS, family, ("MODELS",)).MODELS.items()
    }
