"""Safetensors files written tensor by tensor are those that the library writes."""

import os
import stat

import pytest
import torch
from safetensors.torch import save_file

from quantrust.tensor_file import file_bytes, open_tensor_file, write_tensors

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.uint8, torch.int64)


def some_tensors():
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 5), (0, 4), (), (7,), (2, 3, 1), (1, 1), (11, 2)]
    return {
        f"model.layers.{(7 * k) % 40}.weight{'' if k % 2 else '.codes'}": (
            torch.rand(shapes[k % len(shapes)], generator=generator) * 100
        ).to(DTYPES[k % len(DTYPES)])
        for k in range(40)
    }


def layout_of(tensors):
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


@pytest.mark.parametrize("count", [0, 1, 2, 3, 40])
def test_the_file_is_the_librarys_in_whatever_order_tensors_come(count, tmp_path):
    tensors = dict(list(some_tensors().items())[:count])
    save_file(tensors, tmp_path / "expected", metadata={"format": "pt"})
    with open_tensor_file(tmp_path / "found", layout_of(tensors)) as writer:
        for name in sorted(tensors, key=lambda name: name[::-1]):
            writer.write(name, tensors[name])
    assert (tmp_path / "found").read_bytes() == (tmp_path / "expected").read_bytes()
    assert file_bytes(layout_of(tensors)) == (tmp_path / "expected").stat().st_size


def test_tensors_that_are_laid_out_otherwise_in_memory_are_written_row_by_row(tmp_path):
    tensor = torch.arange(12.0).reshape(3, 4)
    save_file({"a": tensor.t().contiguous()}, tmp_path / "expected", metadata={"format": "pt"})
    with open_tensor_file(tmp_path / "found", {"a": ((4, 3), torch.float32)}) as writer:
        writer.write("a", tensor.t())
    assert (tmp_path / "found").read_bytes() == (tmp_path / "expected").read_bytes()


def test_what_was_not_announced_is_refused(tmp_path):
    layout = {"a": ((2,), torch.float32), "b": ((1,), torch.uint8)}
    for name, tensor in [
        ("c", torch.zeros(2)),
        ("a", torch.zeros(3)),
        ("a", torch.zeros(2, dtype=torch.bfloat16)),
    ]:
        with pytest.raises(ValueError, match=f"{name} .* is not what is to be written"):  # noqa: SIM117
            with open_tensor_file(tmp_path / "file", layout) as writer:
                writer.write(name, tensor)
    with pytest.raises(ValueError, match="1 tensors were not written, among them b"):  # noqa: SIM117
        with open_tensor_file(tmp_path / "file", layout) as writer:
            writer.write("a", torch.zeros(2))
    with pytest.raises(ValueError, match=r"a .* is not what is to be written"):  # noqa: SIM117
        with open_tensor_file(tmp_path / "file", layout) as writer:
            writer.write("a", torch.zeros(2))
            writer.write("a", torch.zeros(2))


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_tensors_that_are_all_there_make_the_librarys_file_with_the_permissions_of_any_new_one(mask, tmp_path):
    tensors = some_tensors()
    save_file(tensors, tmp_path / "expected", metadata={"format": "pt"})
    before = os.umask(mask)
    try:
        write_tensors(tmp_path / "found", tensors)
        (tmp_path / "other").write_bytes(b"")
    finally:
        os.umask(before)
    assert (tmp_path / "found").read_bytes() == (tmp_path / "expected").read_bytes()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("found", "other")]
    assert modes == [0o666 & ~mask] * 2
