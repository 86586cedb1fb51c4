"""Images for the vision tower, which worker processes read and preprocess ahead of the device."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch.utils.data import DataLoader, Dataset

from quantrust.data.images import read_image
from quantrust.errors import QuantrustError
from quantrust.models.family import Family, VisionInputs
from quantrust.models.pictures import preprocess_pictures


@dataclass(frozen=True)
class NeededImage:
    """An image, and one of the questions that need it."""

    path: str
    question_id: str


def preprocess_images(family: Family, processor: Any, images: Sequence[NeededImage]) -> VisionInputs:
    """Read and preprocess images that pass the vision tower together.

    Parameters
    ----------
    family : Family
    processor : object
        As `family.load_processor` returns it.
    images : sequence of NeededImage

    Returns
    -------
    VisionInputs

    Raises
    ------
    QuantrustError
        If one is missing or broken, or the processor refuses it; names the image and the question that needs it.
    """
    opened = [open_image(image) for image in images]
    names = [f"{image.path} (question {image.question_id})" for image in images]
    return preprocess_pictures(family, processor, opened, names)


def open_image(image: NeededImage) -> Image.Image:
    """Read an image as RGB; one that is missing or broken is a `QuantrustError` that names it and its question."""
    try:
        return read_image(image.path)
    except QuantrustError as error:
        raise QuantrustError(
            f"{image.path} cannot be used ({error}), but question {image.question_id} needs it"
        ) from None


class _Batches(Dataset):
    """Preprocesses a batch on demand; an error is returned as an item, because a worker cannot raise it as it is."""

    def __init__(self, family: Family, processor: Any, batches: Sequence[Sequence[NeededImage]]) -> None:
        self.family, self.processor, self.batches = family, processor, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> VisionInputs | QuantrustError:
        try:
            return preprocess_images(self.family, self.processor, self.batches[number])
        except QuantrustError as error:
            return error


def preprocessed_batches(
    family: Family, processor: Any, batches: Sequence[Sequence[NeededImage]], workers: int
) -> Iterator[VisionInputs]:
    """Yield batches of images for the vision tower, in order.

    Parameters
    ----------
    family : Family
    processor : object
    batches : sequence of sequence of NeededImage
    workers : int
        Processes that work ahead, two batches each; 0 preprocesses each batch in this process on demand.

    Yields
    ------
    VisionInputs
        On the CPU; the same for any number of workers.

    Raises
    ------
    QuantrustError
        As `preprocess_images` does; and if a worker dies, as it does with too little memory.
    """
    loader = DataLoader(_Batches(family, processor, batches), batch_size=None, num_workers=workers)
    try:
        for item in loader:
            if isinstance(item, QuantrustError):
                raise item
            yield item
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise QuantrustError(
            f"a process that preprocesses images died ({error}); ask for more memory, or set fewer features.workers or "
            "features.images_per_batch"
        ) from error
