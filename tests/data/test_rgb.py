"""What the pixels of a file become: upright, on white, in 8 bits, for every mode and format that Pillow writes.

`datasets` decodes files and `transformers` brings them to RGB for its processors. Where these are right they are the
reference; where they are not, the table of modes says why, and the right values are worked out by hand.
"""

import io
import struct
import zlib

import datasets
import numpy as np
import pytest
from PIL import Image
from transformers.image_transforms import convert_to_rgb
from transformers.image_utils import load_image

from quantrust.data.images import read_image
from quantrust.data.rgb import DEEP_MODES, to_rgb
from quantrust.errors import QuantrustError

pytestmark = pytest.mark.filterwarnings("ignore:IM image format is deprecated")
Image.init()
SIDE = 16
# PDF and PALM are only written, EPS is a program, and a file of the format MPO is a JPEG file.
FORMATS = sorted(set(Image.SAVE) - {"PDF", "PALM", "EPS", "BUFR", "GRIB", "HDF5", "WMF"})
"""What Pillow writes and reads: the others are only written, are programs, or are left to plugins."""


def ramp():
    """A picture in which every channel has every level of 64, and transparency runs from none to all."""
    y, x = np.mgrid[:SIDE, :SIDE]
    channels = (x * 16 + y, y * 16 + x, (x + y) * 8, x * 17)
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8), "RGBA")


def sample(mode, span=1):
    """The ramp in a mode; `span` is what a step of 8 bits is in those of 32."""
    opaque = ramp().convert("RGB")
    grey = np.asarray(opaque.convert("L"))
    match mode:
        case "I" | "F":
            return Image.fromarray((grey * float(span)).astype(np.int32 if mode == "I" else np.float32))
        case "I;16" | "I;16L" | "I;16N" | "I;16B":
            deep = (grey.astype(np.uint16) * 257).astype(">u2" if mode == "I;16B" else "<u2")
            return Image.frombytes(mode, (SIDE, SIDE), deep.tobytes())
        case "La" | "LA":
            return ramp().convert("LA").convert(mode)
        case "PA" | "RGBA" | "RGBa":
            return ramp().convert(mode)
    return opaque.convert(mode)


def written(picture, name, **options):
    """Return the bytes of a file, or None where Pillow does not write the picture so."""
    buffer = io.BytesIO()
    try:
        picture.save(buffer, name, **options)
    except (OSError, ValueError, KeyError):
        return None
    return buffer.getvalue()


def read(tmp_path, content):
    (tmp_path / "picture").write_bytes(content)
    image = read_image(tmp_path / "picture")
    assert image.mode == "RGB"
    return np.asarray(image)


def decoded(content):
    return datasets.Image().decode_example({"bytes": content, "path": None})


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", *DEEP_MODES]
)
def test_every_mode_in_every_format_is_what_the_libraries_make_of_it(mode, tmp_path):
    compared = 0
    for name in FORMATS:
        content = written(sample(mode), name)
        if content is None or decoded(content).mode in DEEP_MODES:
            continue
        np.testing.assert_array_equal(
            read(tmp_path, content), convert_to_rgb(decoded(content), return_numpy=True), err_msg=name
        )
        compared += 1
    assert compared


@pytest.mark.parametrize("mode", DEEP_MODES)
def test_the_libraries_cut_deep_modes_off(mode):
    """Fails when they are mended: then these modes are compared with them as the others are."""
    elsewhere = convert_to_rgb(sample(mode, span=8_000_000), return_numpy=True)
    assert len(np.unique(elsewhere)) == 2
    assert len(np.unique(np.asarray(to_rgb(sample(mode, span=8_000_000))))) > 64


def test_lab_keeps_its_colours(tmp_path):
    """Written from sRGB and read back; both ways round to 8 bits."""
    content = written(sample("LAB"), "TIFF")
    assert decoded(content).mode == "LAB"
    difference = read(tmp_path, content).astype(int) - np.asarray(ramp().convert("RGB"))
    assert np.abs(difference).mean() < 1


def test_premultiplied_grey_is_laid_on_white():
    """No file is read in this mode but a TIFF file that few programs write. 128 of 255 is 50.2 %."""
    premultiplied = Image.merge("La", [Image.new("L", (1, 1), 50), Image.new("L", (1, 1), 128)])
    # 50 / .502 = 99.6 of grey at 50.2 %, and 255 at the rest
    assert to_rgb(premultiplied).getpixel((0, 0)) == pytest.approx((177,) * 3, abs=1)


def paletted():
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([9, 9, 9, 7, 7, 7])
    return picture


TRANSPARENT = {
    "RGBA": (Image.new("RGBA", (4, 4), (0, 0, 0, 0)), {}),
    "LA": (Image.new("LA", (4, 4), (0, 0)), {}),
    "PA": (Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert("PA"), {}),
    "RGBa": (Image.new("RGBa", (4, 4), (0, 0, 0, 0)), {}),
    "P, one colour": (paletted(), {"transparency": 1}),
    "P, alpha by colour": (paletted(), {"transparency": b"\xff\x00"}),
    "RGB, one colour": (Image.new("RGB", (4, 4), (1, 2, 3)), {"transparency": (1, 2, 3)}),
    "L, one level": (Image.new("L", (4, 4), 7), {"transparency": 7}),
    "1, black": (Image.new("1", (4, 4), 0), {"transparency": 0}),
    "I;16, one level": (Image.new("I;16", (4, 4), 700), {"transparency": 700}),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_a_transparent_ground_is_white_in_whatever_format_keeps_it(kind, tmp_path):
    picture, options = TRANSPARENT[kind]
    # a transparent colour is kept by PNG, and in a palette by GIF; an alpha channel by many
    names = FORMATS if not options else ["PNG", "GIF"] if kind == "P, one colour" else ["PNG"]
    files = [written(picture, name, **options) for name in names]
    keeping = [content for content in files if content is not None and keeps(content)]
    assert keeping and (len(keeping) == len(names) or not options)
    for content in keeping:
        assert (read(tmp_path, content) == 255).all()


def keeps(content):
    with Image.open(io.BytesIO(content)) as image:
        return image.has_transparency_data


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, bits, colour, row, transparent):
    head = struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0)
    parts = ((b"IHDR", head), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(
    ("content", "pixels"),
    [
        (png(2, 1, 0, b"\x40", b"\0\1"), [0, 255]),
        (png(2, 1, 0, b"\x40", b"\0\0"), [255, 255]),
        # 0, 1, 2 and 3 of 3, of which 1 is transparent; Pillow compares 1 with the scaled levels
        (png(4, 2, 0, b"\x1b", b"\0\1"), [0, 255, 170, 255]),
        # 5 and 6 of 15
        (png(2, 4, 0, b"\x56", b"\0\5"), [255, 102]),
        (png(2, 16, 0, b"\x12\x34\x12\x35", b"\x12\x34"), [255, 18]),
        # Pillow compares 16-bit colours with their upper bytes
        (
            png(2, 16, 2, b"\x10\x01\x20\x02\x30\x03\x40\x04\x50\x05\x60\x06", b"\x10\x01\x20\x02\x30\x03"),
            [(255, 255, 255), (0x40, 0x50, 0x60)],
        ),
    ],
    ids=["1 bit, white", "1 bit, black", "2 bits", "4 bits", "16 bits", "16 bits a channel"],
)
def test_the_transparent_colour_of_a_png_file_counts_in_the_bits_that_it_stores(content, pixels, tmp_path):
    expected = [pixel if isinstance(pixel, tuple) else (pixel,) * 3 for pixel in pixels]
    np.testing.assert_array_equal(read(tmp_path, content)[0], expected)


def grey_of(tmp_path, picture, name, **options):
    pixels = read(tmp_path, written(picture, name, **options))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].ravel().tolist()


# 257 steps of 16 bits are one of 8; halves round up
LEVELS = np.array([[0, 128, 129, 257, 385, 386, 32768, 65535]], np.uint16)
SCALED = [0, 0, 1, 1, 1, 2, 128, 255]


@pytest.mark.parametrize("name", ["PNG", "TIFF", "JPEG2000", "PPM", "IM"])
def test_sixteen_bits_are_scaled_by_their_range(name, tmp_path):
    options = {"irreversible": False} if name == "JPEG2000" else {}
    assert grey_of(tmp_path, Image.fromarray(LEVELS), name, **options) == SCALED


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_sixteen_bits_are_scaled_whatever_their_byte_order(mode):
    picture = Image.frombytes(mode, (8, 1), LEVELS.astype(">u2" if mode == "I;16B" else "<u2").tobytes())
    assert np.asarray(to_rgb(picture))[0, :, 0].tolist() == SCALED


def test_a_file_that_does_not_reach_its_range_is_not_brightened(tmp_path):
    """Sixteen bits have a white of their own, also where Pillow's mode for them has more bits, as in PGM."""
    dark = Image.fromarray(np.array([[0, 6553]], np.uint16))
    for name in ("PNG", "TIFF", "PPM"):
        assert grey_of(tmp_path, dark, name) == [0, 25]


@pytest.mark.parametrize("name", ["TIFF", "IM"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 50, 100], [0, 128, 255]),
        ([0, 2**30, 2**31 - 1], [0, 128, 255]),
        # black is zero, or what is below it
        ([50, 75, 100], [128, 191, 255]),
        ([-100, 0, 100], [0, 128, 255]),
        ([-2, -1], [0, 128]),
        ([0, 0], [0, 0]),
    ],
)
def test_thirty_two_bits_are_scaled_by_the_range_of_the_picture(name, values, expected, tmp_path):
    assert grey_of(tmp_path, Image.fromarray(np.array([values], np.int32)), name) == expected


@pytest.mark.parametrize("name", ["TIFF", "PPM", "IM", "SPIDER"])
@pytest.mark.parametrize("unit", [1e-30, 1.0, 255.0, 1e30])
def test_floats_are_scaled_by_the_range_of_the_picture(name, unit, tmp_path):
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    grey = grey_of(tmp_path, Image.fromarray((values * unit).astype(np.float32)), name)
    assert grey == np.rint(values.astype(np.float64) * 255).ravel().tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_floats_that_are_no_numbers_are_refused(value):
    with pytest.raises(QuantrustError, match=r"^has pixels that are not finite numbers$"):
        to_rgb(Image.fromarray(np.array([[0, 1, value]], np.float32)))


def tiff(bits, sample_format, zero_is_white, data, width):
    """A TIFF file of one row, as other programs write it."""
    entries = [
        (256, 4, width),
        (257, 4, 1),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, 0 if zero_is_white else 1),
        (273, 4, 8 + 2 + 10 * 12 + 4),
        (277, 3, 1),
        (278, 4, 1),
        (279, 4, len(data)),
        (339, 3, sample_format),
    ]
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + struct.pack("<I", 0) + data


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # 000, 800 and FFF of 12 bits, packed
        (tiff(12, 1, False, b"\x00\x08\x00\xff\xf0", 3), [0, 128, 255]),
        (tiff(16, 1, True, struct.pack("<3H", 0, 257, 65535), 3), [255, 254, 0]),
        (tiff(32, 3, True, struct.pack("<3f", 0, 0.5, 2), 3), [255, 191, 0]),
        # the upper half of unsigned numbers is no less than the lower one
        (tiff(32, 1, False, struct.pack("<3I", 0, 2**31, 2**32 - 1), 3), [0, 128, 255]),
        (tiff(16, 2, False, struct.pack("<3h", -100, 0, 100), 3), [0, 128, 255]),
    ],
    ids=["12 bits", "white is zero", "white is zero in floats", "unsigned 32 bits", "signed 16 bits"],
)
def test_a_tiff_file_says_what_its_samples_mean(content, expected, tmp_path):
    assert read(tmp_path, content)[0, :, 0].tolist() == expected


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}
"""By EXIF 2.32, 4.6.5: where the stored picture's first row and first column belong."""
LOSSLESS = {
    "PNG": {},
    "TIFF": {},
    "TIFF, packed": {"compression": "tiff_lzw"},
    "WEBP": {"lossless": True, "exact": True},
    "JPEG": {"quality": 100, "subsampling": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "MPO": {"quality": 100, "subsampling": 0},
}


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_picture_is_turned_upright(name, orientation, tmp_path):
    stored = np.zeros((48, 32, 3), np.uint8)
    stored[:24, :16], stored[:24, 16:], stored[24:, :16] = (250, 10, 10), (10, 250, 10), (10, 10, 250)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = written(Image.fromarray(stored), name.split(",")[0], exif=exif, **LOSSLESS[name])
    pixels = read(tmp_path, content).astype(int)
    np.testing.assert_allclose(pixels, UPRIGHT[orientation](stored), atol=8)
    np.testing.assert_array_equal(pixels, np.asarray(load_image(str(tmp_path / "picture"))))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "I", "F"])
def test_a_picture_of_any_mode_is_turned(mode, tmp_path):
    stored = sample(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("PNG", "TIFF"):
        content = written(stored, name, exif=exif)
        if content is not None:
            turned = np.rot90(read(tmp_path, written(stored, name)), -1)
            np.testing.assert_array_equal(read(tmp_path, content), turned, err_msg=name)


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
def test_exif_data_that_say_nothing_are_the_reason(name, tmp_path):
    """The libraries raise a SyntaxError; of a JPEG file Pillow has passed over them already."""
    content = written(ramp().convert("RGB"), name, exif=b"Exif\0\0neither of the byte orders")
    with pytest.raises(
        QuantrustError, match=r"^its EXIF data, which say how it is turned, cannot be read \(not a TIFF file "
    ):
        read(tmp_path, content)
    with pytest.raises(SyntaxError):
        decoded(content)
    assert read(tmp_path, written(ramp().convert("RGB"), "JPEG", exif=b"Exif\0\0neither")).shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF", "PPM"])
def test_plain_pictures_are_what_they_were(name, tmp_path):
    picture = ramp().convert("RGB")
    np.testing.assert_array_equal(read(tmp_path, written(picture, name)), np.asarray(picture))
