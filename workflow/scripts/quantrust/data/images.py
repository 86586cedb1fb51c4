"""Opening images, and finding those that cannot be used before anything depends on them."""

import io
import logging
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from quantrust.artifacts.folder_record import check_file
from quantrust.data.rgb import to_rgb
from quantrust.errors import QuantrustError
from quantrust.progress import progress

LISTED = 10
"""Images that an error names; the log names all of them."""
PROGRAMS = ("EPS",)
"""Formats that Pillow draws by running what the file says, with Ghostscript."""

_log = logging.getLogger(__name__)


def read_image(path: str | Path) -> Image.Image:
    """Read a whole image as RGB, upright and on white; of several frames or pages the first.

    Everything in the project that opens an image does it here; `quantrust.data.rgb` says what becomes of its pixels.

    Raises
    ------
    QuantrustError
        If the file is missing, no regular file, truncated, damaged, no image or too large to unpack; the message is the
        reason alone, in one line. Or if it is of an artifact, and not what was written.
    """
    check_file(path)
    return _read(path)[0]


def decode_image(content: bytes, formats: Sequence[str] | None = None, max_pixels: int | None = None) -> Image.Image:
    """Read the content of an image file as `read_image` reads the file.

    Parameters
    ----------
    content : bytes
    formats : sequence of str, optional
        By Pillow's names; the content is taken for none but these.
    max_pixels : int, optional
        Width times height at most. An image with more is refused before its pixels are unpacked.

    Raises
    ------
    QuantrustError
        If it is truncated, damaged, no image or too large; the message is the reason alone, in one line.
    """
    return _decode(io.BytesIO(content), formats, max_pixels)[0]


def _read(path: str | Path) -> tuple[Image.Image, bool]:
    """Return the image as `read_image` does, and whether its file holds further frames or pages."""
    try:
        kind = Path(path).stat().st_mode
    except OSError as error:
        raise QuantrustError("no such file" if isinstance(error, FileNotFoundError) else error.strerror) from None
    except ValueError as error:
        raise QuantrustError(_one_line(error)) from None
    # Reading a pipe or a device may never end, so that it is not even opened.
    if not stat.S_ISREG(kind):
        what = "folder" if stat.S_ISDIR(kind) else "pipe, a socket or a device"
        raise QuantrustError(f"is a {what}; expected a file")
    return _decode(path)


def _decode(
    source: str | Path | io.BytesIO, formats: Sequence[str] | None = None, max_pixels: int | None = None
) -> tuple[Image.Image, bool]:
    try:
        with Image.open(source, formats=None if formats is None else tuple(formats)) as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise QuantrustError(
                    f"has {image.width} x {image.height} pixels, which is more than the {max_pixels:,} allowed; make "
                    "it smaller"
                )
            if image.format in PROGRAMS:
                raise QuantrustError(
                    f"is a program that draws an image ({image.format}); save the image as PNG or JPEG"
                )
            if 0 in image.size:
                raise QuantrustError(f"has no pixels ({image.width} x {image.height})")
            return to_rgb(image), getattr(image, "is_animated", False)
    except QuantrustError:
        raise
    except FileNotFoundError:
        raise QuantrustError("no such file") from None
    except UnidentifiedImageError:
        raise QuantrustError("not an image of a format that Pillow reads, or truncated in its header") from None
    except Image.DecompressionBombError as error:
        raise QuantrustError(f"may be a decompression bomb: {_one_line(error)}") from None
    except MemoryError:
        raise QuantrustError("takes more memory than there is when it is unpacked") from None
    # Pillow's decoders raise what they like about damaged bytes.
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else _one_line(error)
        raise QuantrustError(reason) from None


def _one_line(error: Exception) -> str:
    said = " ".join(str(error).split())
    return said if isinstance(error, OSError) and said else f"broken ({type(error).__name__}{said and f': {said}'})"


def shared_files(paths: Iterable[str]) -> str | None:
    """Return a note on paths that lead to the same file by links; None if there are none.

    Such images count as different ones, as copies of a file do. They are not refused, because a link does not say that
    a dataset means one picture: the cache of the Hugging Face hub keeps equal files once, and links them.

    Parameters
    ----------
    paths : iterable of str
        Different paths. Those that cannot be looked at are left to `find_bad_images`.
    """
    first: dict[tuple[int, int], str] = {}
    shared = []
    for path in paths:
        try:
            found = Path(path).stat()
        except (OSError, ValueError):
            continue
        other = first.setdefault((found.st_dev, found.st_ino), path)
        if other != path:
            shared.append((other, path))
    if not shared:
        return None
    other, path = shared[0]
    return (
        f"{len(shared)} image files are links to the file of another image, such as {path} to that of {other}; they "
        "count as different images, which may stand in different splits"
    )


def find_bad_images(dataset: str, paths: Iterable[str], max_aspect_ratio: float | None = None) -> dict[str, str]:
    """Read every image once and say which cannot be used.

    Only the first frame or page of a file is looked at. One line of the log says how many files hold several.

    Parameters
    ----------
    dataset : str
        Its name, for progress and log.
    paths : iterable of str
        Different paths.
    max_aspect_ratio : float, optional
        The longer side of an image over its shorter one at most.

    Returns
    -------
    dict
        The reason by path, in the order given; empty when all can be used.
    """
    paths = list(paths)
    bad, several = {}, []
    with progress(f"reading the images of {dataset}", len(paths), "images") as bar:
        for path in paths:
            # an image that the study itself wrote may not be left out: if it is damaged, the study stops
            check_file(path)
            try:
                image, has_more = _read(path)
                _check_shape(image, max_aspect_ratio)
            except QuantrustError as error:
                bad[path] = str(error)
            else:
                if has_more:
                    several.append(path)
            bar.update()
    if several:
        _log.info(
            "%s: %d image files hold several frames or pages, such as %s; the first is taken",
            dataset,
            len(several),
            several[0],
        )
    return bad


def _check_shape(image: Image.Image, max_aspect_ratio: float | None) -> None:
    if max_aspect_ratio is not None and max(image.size) / min(image.size) > max_aspect_ratio:
        raise QuantrustError(
            f"too thin: {image.width} x {image.height} pixels, and the models read images whose longer side is at most "
            f"{max_aspect_ratio:g} times the shorter one"
        )


def refuse_bad_images(dataset: str, bad: Mapping[str, str], questions: Mapping[str, Sequence[str]]) -> None:
    """Raise when there are images that cannot be used, with the questions that refer to them.

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
        _log.warning("%s: %s", dataset, line)
    rest = f"; and {len(lines) - LISTED} more, listed in the log" if len(lines) > LISTED else ""
    raise QuantrustError(
        f"{dataset}: {len(lines)} {'image' if len(lines) == 1 else 'images'} cannot be used: "
        f"{'; '.join(lines[:LISTED])}{rest}. Restore them or correct the folder of images in the config, or set "
        "on_bad_image: skip"
    )
