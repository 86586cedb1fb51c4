"""Images that can not be read: each has a reason, whatever is wrong with it."""

import io

import numpy as np
import pytest
from PIL import Image

from quantrust.errors import QuantrustError
from quantrust.vqa.images import find_bad_images, read_image


def encoded(suffix):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP"}[suffix])
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "webp"])
def test_a_whole_image_is_read_as_rgb(tmp_path, suffix):
    (tmp_path / "x").write_bytes(encoded(suffix))
    image = read_image(tmp_path / "x")
    assert (image.mode, image.size) == ("RGB", (24, 24))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_wherever_a_file_is_cut_the_reason_is_one_line(tmp_path, suffix):
    content = encoded(suffix)
    # The last bytes of a format only say that it ends.
    for length in range(0, len(content) - 16, 7):
        (tmp_path / "x").write_bytes(content[:length])
        with pytest.raises(QuantrustError) as caught:
            read_image(tmp_path / "x")
        assert str(caught.value)
        assert "\n" not in str(caught.value)


def test_damage_anywhere_is_a_reason_or_no_hindrance_and_never_another_exception(tmp_path):
    rng = np.random.default_rng(1)
    for suffix in ("jpg", "png", "gif", "webp"):
        content = np.frombuffer(encoded(suffix), np.uint8)
        for _ in range(100):
            damaged = content.copy()
            damaged[rng.integers(len(content), size=8)] = rng.integers(256, size=8)
            (tmp_path / "x").write_bytes(damaged.tobytes())
            try:
                read_image(tmp_path / "x")
            except QuantrustError as error:
                assert str(error)


def test_a_folder_and_a_missing_file_have_their_reasons(tmp_path):
    (tmp_path / "folder").mkdir()
    bad = find_bad_images("d", [str(tmp_path / "folder"), str(tmp_path / "none.png")])
    assert bad == {str(tmp_path / "folder"): "Is a directory", str(tmp_path / "none.png"): "no such file"}


def test_only_bad_images_are_listed(tmp_path):
    (tmp_path / "good.png").write_bytes(encoded("png"))
    (tmp_path / "bad.png").write_bytes(b"x")
    assert list(find_bad_images("d", [str(tmp_path / f"{name}.png") for name in ("good", "bad")])) == [
        str(tmp_path / "bad.png")
    ]
