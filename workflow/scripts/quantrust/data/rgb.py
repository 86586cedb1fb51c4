"""What the pixels of an opened picture become: upright RGB of 8 bits a channel, on a white ground."""

import numpy as np
from PIL import Image, ImageOps
from PIL.ImageFile import ImageFile

from quantrust.errors import QuantrustError

DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Grey pictures of more than 8 bits, which Pillow itself cuts off at 255."""
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")

# Tags of a TIFF file, and the value of the first that says that its zeros are white.
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_BITS, _SAMPLE_FORMAT, _UNSIGNED = 258, 339, 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Turn a picture upright, lay it on white and give it three channels of 8 bits.

    * The orientation that EXIF or XMP data give is applied.
    * What is transparent, by an alpha channel, a palette or a colour, shows white.
    * Grey of 16 bits is scaled so that 65,535 is white, or the greatest value of the bits that a TIFF file says it has.
    * Grey of 32 bits or of floats has no value that is white: files use a part of the 32 bits, and floats may be shares
      of one, counts or metres. Such a picture is scaled by its own range: its greatest value is white; black is zero,
      or the least value where that is negative. Of PGM files, which Pillow reads as 32 bits, 65,535 is white.
    * Of several frames or pages the one that the picture stands at is taken. Colour profiles are not applied.

    Parameters
    ----------
    image : PIL.Image.Image
        A picture of any mode, best as `PIL.Image.open` returns it: how samples are stored is known only before they are
        decoded. It is decoded and turned in place.

    Returns
    -------
    PIL.Image.Image
        Of the mode RGB; another object.

    Raises
    ------
    QuantrustError
        If its EXIF data cannot be read, or pixels of a float picture are not finite; the message is the reason alone.
        What Pillow raises on damaged files comes through as it is.
    """
    transparent = _transparent_value(image)
    image.load()
    try:
        image.getexif()
    # Pillow raises errors of many kinds about damaged EXIF data
    except Exception as error:
        raise QuantrustError(f"its EXIF data, which say how it is turned, cannot be read ({error})") from None
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in DEEP_MODES:
        return _deep_to_rgb(image)
    if not _has_transparency(image):
        return image.convert("RGB")
    if transparent is not None:
        image.info["transparency"] = transparent
    # Pillow has no way from the premultiplied form to RGBA but this.
    with_alpha = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), with_alpha).convert("RGB")


def _has_transparency(image: Image.Image) -> bool:
    # Pillow's own `has_transparency_data` fails on ICNS files with a palette, which it does not hand on.
    palette_alpha = image.palette is not None and image.palette.mode.endswith("A")
    return image.mode in ALPHA_MODES or "transparency" in image.info or palette_alpha


def _transparent_value(image: Image.Image) -> int | tuple[int, ...] | bytes | None:
    """Return the value of a picture's transparent pixels as its decoded pixels have it.

    PNG gives it in the bits that are stored. Pillow leaves it so, but scales samples of 2 and 4 bits up to 8, and those
    of 16-bit colours down.
    """
    value = image.info.get("transparency")
    stored = image.tile[0].args if isinstance(image, ImageFile) and image.format == "PNG" and image.tile else None
    match stored, value:
        case "L;2", int():
            return value * 255 // 3
        case "L;4", int():
            return value * 255 // 15
        case "RGB;16B", tuple():
            return tuple(part >> 8 for part in value)
    return value


def _deep_to_rgb(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    values = np.asarray(image)
    if image.mode == "I" and tags.get(_BITS) == (32,) and tags.get(_SAMPLE_FORMAT) == (_UNSIGNED,):
        values = values.view(np.uint32)
    if not np.isfinite(values).all():
        raise QuantrustError("has pixels that are not finite numbers")
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        black, white = min(0.0, float(values.min())), max(0.0, float(values.max()))
    else:
        (bits,) = tags.get(_BITS, (16,))
        black, white = 0, 2**bits - 1
    # in place: a picture of 100 million pixels takes 800 MB as it is
    grey = values.astype(np.float64)
    grey -= black
    grey *= 255
    # a picture of nothing but zeros has no range
    grey /= max(white - black, 1e-300)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        np.subtract(255, grey, out=grey)
    if (transparent := image.info.get("transparency")) is not None:
        grey[values == transparent] = 255
    # halves up, by cutting off what is behind the point
    grey += 0.5
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
