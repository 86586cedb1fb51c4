"""Room on the disk is checked before long work begins, and a disk that fills during it is named."""

import os
import shutil
from types import SimpleNamespace

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from quantrust.disk import check_disk
from quantrust.errors import QuantrustError
from quantrust.files import atomic_directory, atomic_path
from quantrust.quantization.quantize import quantize_model
from quantrust.tensor_file import write_tensors


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


def write_pdf(path):
    figure = Figure()
    # a page that is more than what is written at once
    figure.add_subplot().plot(np.random.default_rng(0).random(10**4))
    with PdfPages(path) as pages:
        pages.savefig(figure)


WRITERS = {
    "text": lambda path: path.write_text("x" * 10**6),
    "polars": lambda path: pl.DataFrame({"row": range(10**5)}).write_parquet(path),
    "pyarrow": lambda path: pq.write_table(pa.table({"row": range(10**5)}), path),
    "pdf": write_pdf,
    "tensors": lambda path: write_tensors(path, {"weight": torch.zeros(10**5)}),
}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which Linux has")
@pytest.mark.parametrize("writer", WRITERS)
def test_an_artifact_for_which_the_disk_has_no_room_is_named_and_not_left_half_written(writer, tmp_path):
    message = r"out: the disk has no room for it \(.*No space left on device.*\); make room, or move the study"
    with pytest.raises(QuantrustError, match=message), atomic_path(tmp_path / "out") as partial:
        partial.unlink()
        partial.symlink_to("/dev/full")
        WRITERS[writer](partial)
    with pytest.raises(QuantrustError, match=message), atomic_directory(tmp_path / "out") as partial:
        (partial / "file").symlink_to("/dev/full")
        WRITERS[writer](partial / "file")
    assert list(tmp_path.iterdir()) == []


def test_other_faults_are_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "out"):
        (tmp_path / "missing").read_bytes()
