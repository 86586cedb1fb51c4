"""Settings of the evaluation from keywords, as tests vary them."""

from dataclasses import fields
from typing import Any


def given(settings: type, /, **keywords: Any) -> dict[str, Any]:
    """Return the keywords of a call: those that a class of settings has as one object of it, the others as they are."""
    own = {field.name for field in fields(settings)} & keywords.keys()
    others = {name: value for name, value in keywords.items() if name not in own}
    return {**others, "settings": settings(**{name: keywords[name] for name in own})}
