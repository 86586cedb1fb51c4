"""A tokenizer that others wrote, tried where it may be lost: its file holds patterns and steps that need not end."""

from pathlib import Path

from quantrust.errors import QuantrustError
from quantrust.models.bounded import ends_soon
from quantrust.models.named_errors import blaming
from quantrust.models.processing import load_tokenizer

SECONDS = 20
"""Of processor time. The largest published ones are loaded in about two."""
MEMORY = 2 << 30
"""Bytes. The largest published ones take a quarter."""
MOST_PER_BYTE = 4
"""Tokens of a byte of text, at most. Falling back on bytes makes one of it, and normalizers may make a few."""
LENGTH = 500
"""Of each kind of text that is tried."""
TEXTS = (
    "What is in the picture?",
    *(f"{character * LENGTH}!" for character in "aA1.- \né中"),
    *(f"{word * (LENGTH // len(word))}!" for word in ("ab", "a ", "a1", "the picture ")),
)
"""Patterns that take for ever do so on long runs of what they repeat, followed by something else."""


def check_tokenizer(folder: str | Path) -> None:
    """Raise when the tokenizer of a model folder is not to be loaded in this process.

    A pattern may be slow on one text alone, which no trial finds. Then a job is slow, as with a large model.

    Parameters
    ----------
    folder : str or Path

    Raises
    ------
    QuantrustError
        If loading it and reading `TEXTS` takes more than `SECONDS` or `MEMORY`, or makes more than `MOST_PER_BYTE`
        tokens of a byte; if it cannot read a text; or as `load_tokenizer` does.
    """
    path = Path(folder) / "tokenizer.json"
    if not ends_soon(lambda: _token_counts(folder), SECONDS, MEMORY):
        raise QuantrustError(
            f"{path}: the tokenizer does not read short texts within {SECONDS} seconds and {MEMORY >> 30} GiB of "
            "memory; get the file again"
        )
    with blaming(f"{path}: the tokenizer cannot read a text", "get it and tokenizer_config.json again"):
        counts = _token_counts(folder)
    for text, count in zip(TEXTS, counts, strict=True):
        if count > MOST_PER_BYTE * len(text.encode()):
            raise QuantrustError(
                f"{path}: the tokenizer makes {count:,} tokens of {text[:24]!r}, of {len(text.encode())} bytes; "
                f"expected at most {MOST_PER_BYTE} a byte: get the file again"
            )


def _token_counts(folder: str | Path) -> list[int]:
    tokenizer = load_tokenizer(folder)
    return [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in TEXTS]
