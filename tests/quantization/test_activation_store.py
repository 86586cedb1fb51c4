"""Activations come back as they were, from memory and from files, and leave nothing behind."""

import errno
import os
from pathlib import Path

import pytest
import torch

from quantrust.errors import QuantrustError
from quantrust.models.family import VisionInputs
from quantrust.quantization.activation_store import ActivationStore, fetch


@pytest.mark.parametrize("budget", [0, 1 << 20])
def test_nested_values_come_back_as_they_were(budget, tmp_path):
    store = ActivationStore(tmp_path / "scratch", budget)
    shared = torch.randn(3, 4, dtype=torch.float64)
    value = (shared.t(), {"mask": shared > 0, "none": None, "more": [torch.tensor(7), shared]}, "text")
    stored = store.put_all(value)
    found = fetch(stored)
    assert found[0].equal(shared.t()) and found[1]["mask"].equal(shared > 0) and found[1]["mask"].dtype == torch.bool
    assert found[1]["none"] is None and found[1]["more"][0] == 7 and found[1]["more"][1].equal(shared)
    assert found[2] == "text" and isinstance(found[1]["more"], list)
    assert (store.spilled > 0) == (budget == 0)
    inputs = fetch(store.put_all(VisionInputs({"pixels": shared}, ("<image>",), (None,))))
    assert inputs.tensors["pixels"].equal(shared) and inputs.placeholders == ("<image>",)


def test_memory_is_used_up_to_the_budget_and_both_are_freed(tmp_path):
    scratch = tmp_path / "scratch"
    store = ActivationStore(scratch, budget=2 * 400)
    stored = [store.put(torch.full((100,), float(k))) for k in range(4)]
    assert store.held == 800 and len(list(scratch.iterdir())) == 2
    assert [float(tensor.get()[5]) for tensor in stored] == [0, 1, 2, 3]
    del stored[0], stored[-1]
    assert store.held == 400 and len(list(scratch.iterdir())) == 1
    # there is room again
    stored.append(store.put(torch.zeros(100)))
    assert store.held == 800 and len(list(scratch.iterdir())) == 1
    stored.clear()
    assert store.held == 0 and list(scratch.iterdir()) == []


def test_a_tensor_is_put_in_once():
    store, tensor = ActivationStore(), torch.zeros(10)
    known = {}
    first = store.put_all([tensor, {"again": tensor}], known)
    assert store.held == 40 and first[0] is first[1]["again"]
    fetched = {}
    again = store.put_all(fetch(first, fetched), fetched)
    assert again[0] is first[0] and store.held == 40


@pytest.mark.parametrize("budget", [0, 1 << 20])
def test_rows_of_a_matrix_are_read_alone_and_keep_it(budget, tmp_path):
    store = ActivationStore(tmp_path / "scratch", budget)
    matrix = torch.randn(11, 5)
    stored = store.put(matrix)
    rows = stored.rows(2, 9)
    del stored
    assert rows.get().equal(matrix[2:9])
    assert (store.spilled == 0) == (budget > 0)
    del rows
    assert store.held == 0 and (budget > 0 or list((tmp_path / "scratch").iterdir()) == [])


def test_a_full_disk_is_said_in_one_line(tmp_path, monkeypatch):
    def write(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    store = ActivationStore(tmp_path / "scratch")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write)
        with pytest.raises(QuantrustError) as raised:
            store.put(torch.zeros(300))
    message = (
        f"{tmp_path / 'scratch' / '0'}: no room on the disk for 1,200 bytes of activations (No space left on device)"
    )
    assert str(raised.value).startswith(f"{message}; make room, ") and "calibration.samples" in str(raised.value)
    assert "\n" not in str(raised.value)
    # other faults are not taken for it
    monkeypatch.setattr(Path, "write_bytes", lambda self, content: os.open(self / "below", os.O_RDONLY))
    with pytest.raises(FileNotFoundError):
        store.put(torch.zeros(300))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which Linux has")
def test_a_device_without_room_is_said_in_one_line(tmp_path):
    (tmp_path / "0").symlink_to("/dev/full")
    with pytest.raises(QuantrustError, match="no room on the disk for 48 bytes of activations"):
        ActivationStore(tmp_path).put(torch.zeros(3, 4))
