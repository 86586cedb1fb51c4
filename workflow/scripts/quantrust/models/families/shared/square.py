"""Image processors that make every picture, or every tile of one, the square that the vision tower reads."""

from transformers.image_processing_base import ImageProcessingMixin

from quantrust.errors import QuantrustError


def check_square(folder: str, processor: ImageProcessingMixin, side: int) -> None:
    """Raise when pictures are not resized to the square of the vision tower.

    Parameters
    ----------
    folder : str
        For the message.
    processor : transformers.ImageProcessingMixin
    side : int
        Of the square, in pixels: `image_size` of the vision tower.

    Raises
    ------
    QuantrustError
        Names both sizes.
    """
    size = {name: getattr(processor.size, name, None) for name in ("height", "width")}
    if not processor.do_resize or {*size.values()} != {side}:
        raise QuantrustError(
            f"{folder}: the image processor makes pictures of {size['height']!r} x {size['width']!r} pixels (size, "
            f"with do_resize {processor.do_resize}), but the vision tower reads {side} a side (image_size in "
            "config.json); both must be of one model: get the folder again"
        )
