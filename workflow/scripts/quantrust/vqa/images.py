"""Opening images, and finding those that can not be opened before anything depends on them."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from quantrust.errors import QuantrustError
from quantrust.progress import progress

LISTED = 10
"""Images that an error names; the log names all of them."""


def read_image(path: str | Path) -> Image.Image:
    """Read a whole image as RGB.

    Raises
    ------
    QuantrustError
        If the file is missing, truncated or no image; the message is the reason alone.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise QuantrustError("no such file") from None
    except UnidentifiedImageError:
        raise QuantrustError("not an image, or truncated in its header") from None
    except Image.DecompressionBombError as error:
        raise QuantrustError(str(error)) from None
    except OSError as error:
        raise QuantrustError(error.strerror or str(error)) from None
    except (SyntaxError, ValueError) as error:
        # What Pillow's decoders raise about a broken chunk or a broken field.
        raise QuantrustError(f"broken: {error}") from None


def find_bad_images(dataset: str, paths: Iterable[str]) -> dict[str, str]:
    """Read every image once and say which can not be read.

    Parameters
    ----------
    dataset : str
        Its name, for the progress.
    paths : iterable of str
        Different paths.

    Returns
    -------
    dict
        The reason by path, in the order given; empty when all can be read.
    """
    paths = list(paths)
    bad = {}
    with progress(f"reading the images of {dataset}", len(paths), "images") as bar:
        for path in paths:
            try:
                read_image(path)
            except QuantrustError as error:
                bad[path] = str(error)
            bar.update()
    return bad


def refuse_bad_images(dataset: str, bad: Mapping[str, str], questions: Mapping[str, Sequence[str]]) -> None:
    """Raise when there are images that can not be read, with the questions that refer to them.

    Parameters
    ----------
    dataset : str
    bad : mapping of str to str
        The reason by path, as `find_bad_images` returns it.
    questions : mapping of str to sequence of str
        Identifiers of the questions about each path.

    Raises
    ------
    QuantrustError
        If there is any; it names the first `LISTED`, and the log names all.
    """
    if not bad:
        return
    lines = [f"{path} (question {', '.join(questions[path])}): {reason}" for path, reason in bad.items()]
    for line in lines:
        logging.getLogger(__name__).warning("%s: %s", dataset, line)
    rest = f"; and {len(lines) - LISTED} more, listed in the log" if len(lines) > LISTED else ""
    raise QuantrustError(
        f"{dataset}: {len(lines)} {'image' if len(lines) == 1 else 'images'} can not be read: "
        f"{'; '.join(lines[:LISTED])}{rest}. Restore them or correct the folder of images in the config, or set "
        "on_bad_image: skip"
    )
