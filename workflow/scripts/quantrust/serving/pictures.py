"""Pictures that clients send: from a data URL to pixels, within limits, without a file."""

import base64
import binascii

from PIL import Image

from quantrust.data.images import decode_image
from quantrust.errors import QuantrustError
from quantrust.serving.refusal import Refusal, invalid

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
"""Those that the protocol names, by Pillow's names; of an animation the first frame is taken."""
MEDIA_TYPES = ("image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif")
LONGEST_HEAD = 100
"""Characters of a data URL before its comma."""
MOST_SCANS = 100
"""Passes over a JPEG's pixels. Cameras write some ten; a hostile file of a megabyte may ask for many thousands."""
_START_OF_SCAN = b"\xff\xda"


def data_of(url: str) -> bytes:
    """Return the bytes that a data URL holds.

    Raises
    ------
    Refusal
        If it is no data URL of an image in base64.
    """
    head, comma, data = url.partition(",")
    if not comma or len(head) > LONGEST_HEAD or head[:5].lower() != "data:":
        raise _unusable("no data URL", "expected data:image/png;base64,... with the image's bytes in base64")
    media, *parameters = (part.strip().lower() for part in head[5:].split(";"))
    if media not in MEDIA_TYPES or "base64" not in parameters:
        raise _unusable("a data URL of another kind", f"expected one of {', '.join(MEDIA_TYPES)} in base64")
    try:
        return base64.b64decode(data, validate=True)
    # a text with other characters than ASCII is a plain ValueError
    except (binascii.Error, ValueError):
        raise _unusable("no valid base64 behind the comma", "expected its alphabet alone, with padding") from None


def decode(content: bytes, max_pixels: int) -> Image.Image:
    """Return the picture in a file's bytes as RGB, upright and on white.

    Parameters
    ----------
    content : bytes
    max_pixels : int
        Width times height at most.

    Raises
    ------
    Refusal
        If it is no whole picture of `FORMATS`, or too large.
    """
    if content[:2] == b"\xff\xd8" and content.count(_START_OF_SCAN) > MOST_SCANS:
        raise _unusable(f"a JPEG with more than {MOST_SCANS} scans", "save it anew")
    try:
        return decode_image(content, FORMATS, max_pixels)
    except QuantrustError as error:
        raise _unusable(str(error), f"expected a whole image, one of {', '.join(FORMATS)}") from None


def _unusable(fault: str, expected: str) -> Refusal:
    return invalid(f"the image cannot be used ({fault}); {expected}", "messages", "invalid_image")
