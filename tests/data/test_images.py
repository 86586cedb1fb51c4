"""Images that cannot be used: each has a reason in one line, whatever is wrong with it."""

import ast
import io
import os
import signal
import socket
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hunting import trials
from quantrust.data.images import find_bad_images, read_image
from quantrust.errors import QuantrustError

pytestmark = pytest.mark.filterwarnings("ignore:IM image format is deprecated")
Image.init()
FORMATS = sorted(set(Image.SAVE) - {"PDF", "PALM", "EPS", "BUFR", "GRIB", "HDF5", "WMF"})
"""What Pillow writes and reads: the others are only written, are programs, or are left to plugins."""


def encoded(name, side=24, **options):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8))
    mode = {"BLP": "P", "MSP": "1", "XBM": "1", "GIF": "P"}.get(name, "RGB")
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IM image format is deprecated")
        picture.convert(mode).save(buffer, name, **options)
    return buffer.getvalue()


WHOLE = {name: encoded(name) for name in FORMATS}
WHOLE["TIFF, packed"] = encoded("TIFF", compression="tiff_lzw")

# The header of a PNG file that says 100,000 x 100,000 pixels.
HUGE = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)


def reason(path):
    with pytest.raises(QuantrustError) as caught:
        read_image(path)
    return str(caught.value)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_image_is_read_as_rgb(tmp_path, name):
    (tmp_path / "x").write_bytes(WHOLE[name])
    assert read_image(tmp_path / "x").mode == "RGB"


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_wherever_a_file_is_cut_the_reason_is_one_line(tmp_path, name):
    # The last bytes of a format only say that it ends.
    for length in range(0, len(WHOLE[name]) - 16, 7):
        (tmp_path / "x").write_bytes(WHOLE[name][:length])
        assert "\n" not in reason(tmp_path / "x") != ""


@pytest.fixture(scope="module")
def damaged_file(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "x"


@st.composite
def damaged(draw):
    """A file that is cut, and of which some bytes are others, most of them at its beginning, which says what it is."""
    content = bytearray(WHOLE[draw(st.sampled_from(sorted(WHOLE)))])
    for _ in range(draw(st.integers(0, 6))):
        place = min(draw(st.integers(0, draw(st.sampled_from([16, 64, 256, len(content)])))), len(content) - 1)
        content[place] = draw(st.sampled_from([0, 1, 127, 128, 255]) | st.integers(0, 255))
    return bytes(content[: draw(st.just(len(content)) | st.integers(0, len(content)))])


@pytest.mark.hunt
@settings(max_examples=len(trials(600, 30_000)))
@given(content=damaged())
def test_damage_anywhere_is_a_reason_or_no_hindrance_and_never_another_exception(damaged_file, content):
    damaged_file.write_bytes(content)
    with warnings.catch_warnings():
        # of Pillow, about damage that is no hindrance
        warnings.simplefilter("ignore")
        try:
            assert read_image(damaged_file).mode == "RGB"
        except QuantrustError as error:
            assert "\n" not in str(error) != ""


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Failed to decode\n  frame 0: Invalid argument"),
        NotImplementedError("Unimplemented pixel format 827611204"),
        struct.error("unpack requires a buffer of 4 bytes"),
        IndexError("index out of range"),
        KeyError(3),
        EOFError(),
        AssertionError(),
        RecursionError("maximum recursion depth exceeded"),
        OverflowError("cannot fit"),
        ZeroDivisionError("division by zero"),
        SyntaxError("broken PNG file"),
        TypeError("an integer is required"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("where", ["PIL.Image.open", "PIL.Image.Image.convert", "PIL.ImageOps.exif_transpose"])
def test_whatever_opening_and_converting_raise_is_a_reason_that_names_it(where, error, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise error

    (tmp_path / "x.png").write_bytes(WHOLE["PNG"])
    monkeypatch.setattr(where, fail)
    said = reason(tmp_path / "x.png")
    assert said == f"broken ({type(error).__name__}{': ' if str(error) else ''}{' '.join(str(error).split())})"


def test_an_image_that_memory_does_not_hold_is_named_as_that(tmp_path, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    (tmp_path / "x.png").write_bytes(WHOLE["PNG"])
    monkeypatch.setattr("PIL.Image.Image.convert", fail)
    assert reason(tmp_path / "x.png") == "takes more memory than there is when it is unpacked"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            WHOLE["PNG"][:12] + HUGE + struct.pack(">I", zlib.crc32(HUGE)) + WHOLE["PNG"][33:],
            "may be a decompression bomb",
        ),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n", "is a program that draws an"),
        (b"P6 0 5 255\n", "not an image"),
        (b"", "not an image of a format that Pillow reads, or truncated in its header"),
        (b"<html>not found</html>", "not an image"),
        (WHOLE["DDS"][:80] + b"\x04\0\0\0DXT9" + WHOLE["DDS"][88:], "broken (NotImplementedError: "),
        (WHOLE["BLP"][:4] + b"\x09" + WHOLE["BLP"][5:], "broken (BLPFormatError: "),
    ],
    ids=["bomb", "program", "no pixels", "empty", "a page", "unknown pixels", "unknown packing"],
)
def test_what_is_wrong_with_a_file_is_said(content, expected, tmp_path):
    (tmp_path / "x").write_bytes(content)
    assert reason(tmp_path / "x").startswith(expected)


@pytest.fixture
def in_seconds():
    """Fail a test that waits, which reading a pipe would do for ever."""

    def fail(*arguments):
        raise TimeoutError("waits for a file that is no regular one")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def test_pipes_devices_sockets_and_folders_are_refused_and_not_read(tmp_path, in_seconds, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")
    Path("folder").mkdir()
    Path("device.png").symlink_to("/dev/zero")
    Path("nowhere.png").symlink_to("none.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.png")
        found = find_bad_images(
            "d", ["pipe.png", "device.png", "socket.png", "folder", "nowhere.png", "a\0b", "x" * 300]
        )
    special = "is a pipe, a socket or a device; expected a file"
    assert found == {
        "pipe.png": special,
        "device.png": special,
        "socket.png": special,
        "folder": "is a folder; expected a file",
        "nowhere.png": "no such file",
        "a\0b": "broken (ValueError: embedded null byte)",
        "x" * 300: "File name too long",
    }


def test_no_other_module_opens_an_image_or_converts_one():
    root = Path(__file__).parents[2]
    found = set()
    for path in [path for folder in ("workflow", "benchmarks", "docs") for path in (root / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_bytes())):
            match node:
                case ast.Call(func=ast.Attribute(attr="open", value=ast.Name("Image") | ast.Attribute(attr="Image"))):
                    found.add((path.name, "opens"))
                case ast.Call(func=ast.Attribute(attr="convert")):
                    found.add((path.name, "converts"))
    assert found == {("images.py", "opens"), ("rgb.py", "converts")}


def test_only_bad_images_are_listed(tmp_path):
    (tmp_path / "good.png").write_bytes(WHOLE["PNG"])
    (tmp_path / "bad.png").write_bytes(b"x")
    assert list(find_bad_images("d", [str(tmp_path / f"{name}.png") for name in ("good", "bad")])) == [
        str(tmp_path / "bad.png")
    ]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("GIF", {}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("MPO", {"quality": 100}),
        ("AVIF", {"quality": 100}),
    ],
)
def test_of_several_frames_the_first_is_taken_and_noted_once(name, options, tmp_path, caplog):
    first, second = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    for place in range(3):
        first.save(tmp_path / f"{place}.x", name, save_all=True, append_images=[second], **options)
    (tmp_path / "plain").write_bytes(WHOLE[name])
    assert read_image(tmp_path / "0.x").getpixel((8, 8)) == pytest.approx((255, 0, 0), abs=3)
    caplog.set_level("INFO")
    assert find_bad_images("d", [str(tmp_path / f"{place}.x") for place in range(3)] + [str(tmp_path / "plain")]) == {}
    (line,) = caplog.messages
    assert line.startswith("d: 3 image files hold several frames or pages, such as /")
    assert line.endswith("/0.x; the first is taken")


@pytest.mark.parametrize("size", [(300, 1), (1, 300), (201, 1), (402, 2), (401, 2)])
def test_an_image_beyond_the_aspect_ratio_is_bad_in_either_direction(size, tmp_path):
    Image.new("RGB", size).save(tmp_path / "thin.png")
    Image.new("RGB", (400, 2)).save(tmp_path / "just.png")
    paths = [str(tmp_path / "thin.png"), str(tmp_path / "just.png")]
    assert find_bad_images("d", paths) == {}
    assert find_bad_images("d", paths, 200) == {
        paths[0]: f"too thin: {size[0]} x {size[1]} pixels, and the models read images whose longer side is at most "
        "200 times the shorter one"
    }


def test_the_sides_of_an_image_are_those_of_its_upright_form(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (300, 1)).save(tmp_path / "x.png", exif=exif)
    assert "1 x 300 pixels" in find_bad_images("d", [str(tmp_path / "x.png")], 200)[str(tmp_path / "x.png")]
