"""What a bundle is asked: items, the pictures of some of them at a time, and what cannot be asked."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from quantrust.data.images import decode_image, read_image
from quantrust.data.rgb import to_rgb
from quantrust.errors import QuantrustError


@dataclass(frozen=True)
class Item:
    """A question about an image, or an image alone.

    Attributes
    ----------
    image : str, Path, bytes or PIL.Image.Image
        A path, the content of an image file, or a picture.
    question : str or None
        None where the bundle asks the same about every image.
    item_id : str or None
        Returned with the answer.
    """

    image: Any
    question: str | None = None
    item_id: str | None = None


@dataclass(frozen=True)
class Failure:
    """Why an item could not be answered.

    Attributes
    ----------
    error : str
        One line.
    item_id : str or None
        That of the item.
    """

    error: str
    item_id: str | None = None


def as_item(given: Any) -> Item:
    """Return an item, also of a pair of an image and a question."""
    return given if isinstance(given, Item) else Item(*given)


@dataclass
class Chunk:
    """Items that are answered together, with their pictures.

    Attributes
    ----------
    items : list of Item
    keys : list of object
        The picture of each item; None where it cannot be used.
    pictures : dict
        RGB, by key, in the order in which they first occur.
    faults : dict of int to str
        Why an item cannot be answered, by its place.
    """

    items: list[Item] = field(default_factory=list)
    keys: list[Any] = field(default_factory=list)
    pictures: dict[Any, Image.Image] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)

    def add(self, item: Item, key: Any, picture: Image.Image | str) -> None:
        """Append an item with its picture, or with the reason why it has none."""
        if isinstance(picture, str):
            self.faults[len(self.items)] = picture
        else:
            self.pictures[key] = picture
        self.items.append(item)
        self.keys.append(key)


def cut(items: Iterable[Item], images_per_chunk: int) -> Iterator[Chunk]:
    """Yield consecutive items about a given number of pictures, which are opened on the way.

    Parameters
    ----------
    items : iterable of Item
    images_per_chunk : int
        Pictures that can be used; those that cannot do not count.
    """
    chunk = Chunk()
    bad: dict[Any, str] = {}
    for item in items:
        key = _key(item.image)
        if key in chunk.pictures:
            picture: Image.Image | str = chunk.pictures[key]
        elif key in bad:
            picture = bad[key]
        else:
            picture = open_picture(item.image)
            if isinstance(picture, str):
                bad[key] = picture
            elif len(chunk.pictures) == images_per_chunk:
                yield chunk
                chunk, bad = Chunk(), {}
        chunk.add(item, key, picture)
    if chunk.items:
        yield chunk


def _key(image: Any) -> Any:
    """Return what tells pictures apart: a path, the content of a file, or the object."""
    if isinstance(image, str | Path):
        return str(image)
    return image if isinstance(image, bytes) else id(image)


def open_picture(image: Any) -> Image.Image | str:
    """Return a picture in RGB, or the reason why it cannot be used."""
    try:
        if isinstance(image, str | Path):
            return read_image(image)
        if isinstance(image, bytes):
            return decode_image(image)
        if isinstance(image, Image.Image):
            return to_rgb(image.copy())
    except QuantrustError as error:
        named = f"{image}: " if isinstance(image, str | Path) else ""
        return f"image {named}{error}"
    return f"image is a {type(image).__name__}; expected a path, the content of an image file, or a PIL image"
