"""Room on the disk is checked before long work begins."""

import shutil
from types import SimpleNamespace

import pytest

from quantrust.disk import check_disk
from quantrust.errors import QuantrustError
from quantrust.quantization.quantize import quantize_model


def test_a_disk_without_room_is_named_with_what_is_needed(tmp_path):
    path = tmp_path / "not" / "there" / "f.parquet"
    check_disk(path, 1, "keep less")
    with pytest.raises(
        QuantrustError, match=r"f\.parquet takes up to 1e\+09 GB, but .* has .* GB free; .* or keep less$"
    ):
        check_disk(path, 10**18, "keep less")


def test_quantizing_stops_before_it_writes_where_the_checkpoint_has_no_room(model_folders, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    out = tmp_path / "checkpoints" / "rtn"
    with pytest.raises(QuantrustError, match=r"rtn takes up to .*calibration\.samples"):
        quantize_model(model_folders["qwen2_vl"], "rtn-w4g32", None, out)
    assert not out.parent.exists()
