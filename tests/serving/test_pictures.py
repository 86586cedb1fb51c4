"""Pictures from data URLs: read as every image of the project, within limits, or refused with a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hunting import trials
from quantrust.serving.pictures import MOST_SCANS, data_of, decode
from quantrust.serving.refusal import Refusal
from serving.served import data_url, picture

LIMIT = 10_000


def reason(url: str, max_pixels: int = LIMIT) -> str:
    with pytest.raises(Refusal) as caught:
        decode(data_of(url), max_pixels)
    assert (caught.value.status, caught.value.code) == (400, "invalid_image")
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_the_formats_of_the_protocol_are_read(kind: str) -> None:
    assert decode(data_of(data_url(kind=kind)), LIMIT).size == (24, 16)


def test_pixels_are_those_that_a_study_reads() -> None:
    assert np.array_equal(decode(data_of(data_url()), LIMIT), picture())
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    picture().save(turned, "PNG", exif=exif)
    assert np.array_equal(decode(turned.getvalue(), LIMIT), picture().rotate(-90, expand=True))
    clear = Image.new("RGBA", (2, 2), (200, 0, 0, 0))
    assert np.array_equal(decode(data_of(data_url(clear)), LIMIT), np.full((2, 2, 3), 255))


def test_more_pixels_than_allowed_are_refused_before_they_are_unpacked() -> None:
    assert decode(data_of(data_url(Image.new("RGB", (100, 100)))), LIMIT).size == (100, 100)
    assert "has 100 x 101 pixels, which is more than the 10,000 allowed" in reason(
        data_url(Image.new("RGB", (100, 101)))
    )
    # the header of a small picture, which now promises 30 GB
    small = data_of(data_url())
    head = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    bomb = small[:12] + head + struct.pack(">I", zlib.crc32(head)) + small[33:]
    for limit in (LIMIT, 10**12):
        with pytest.raises(Refusal, match="bomb"):
            decode(bomb, limit)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", "no data URL"),
        ("data:image/png;base64", "no data URL"),
        ("x" * 200 + ",AAAA", "no data URL"),
        ("data:text/html;base64,AAAA", "a data URL of another kind"),
        ("data:image/svg+xml;base64,AAAA", "a data URL of another kind"),
        ("data:image/png,AAAA", "a data URL of another kind"),
        ("data:image/png;base64,AAA", "no valid base64"),
        ("data:image/png;base64,AA AA", "no valid base64"),
        ("data:image/png;base64,AAAä", "no valid base64"),
        ("data:image/png;base64,", "not an image of a format"),
        (data_url()[:-40] + "AAAA", "truncated"),
        (data_url(kind="BMP").replace("bmp", "png"), "not an image of a format"),
    ],
)
def test_what_is_no_whole_image_is_refused(url: str, expected: str) -> None:
    assert expected in reason(url)


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    buffer = io.BytesIO()
    picture().save(buffer, "JPEG", progressive=True)
    whole = buffer.getvalue()
    assert decode(whole, LIMIT).size == (24, 16)
    with pytest.raises(Refusal, match="more than 100 scans"):
        decode(whole + b"\xff\xda" * MOST_SCANS, LIMIT)


@pytest.mark.hunt
def test_damaged_bytes_are_a_picture_or_a_refusal() -> None:
    rng = np.random.default_rng(0)
    wholes = [data_of(data_url(kind=kind)) for kind in ("PNG", "JPEG", "WEBP", "GIF")]
    for trial in trials(200, 20_000):
        content = bytearray(wholes[trial % 4])
        for place in rng.integers(0, len(content), rng.integers(1, 6)):
            content[place] = rng.integers(0, 256)
        try:
            assert decode(bytes(content[: rng.integers(1, len(content) + 1)]), LIMIT).mode == "RGB"
        except Refusal as refusal:
            assert refusal.status == 400
