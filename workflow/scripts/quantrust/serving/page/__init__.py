"""The page at `/`: one HTML file with its style and its script in it, and a policy that lets nothing else run."""

import base64
import hashlib
from pathlib import Path

_FOLDER = Path(__file__).parent


class Page:
    """The page, and the content security policy that belongs to it.

    Attributes
    ----------
    html : str
    policy : str
        Of scripts and styles it allows those whose digests it names, and of connections those to the server itself.
    """

    def __init__(self) -> None:
        style, script, frame = (
            (_FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js", "page.html")
        )
        # as a browser reads them: what stands between the tags, line breaks included
        self.html = frame.replace("/* page.css */", style).replace("/* page.js */", script)
        self.policy = (
            f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}; img-src data: blob:; "
            "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
        )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
