"""Folders as other libraries write them, made of a random model with the libraries themselves or by definition."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

BLOCK = "model.language_model.layers.{}"
LAYERS = (
    BLOCK.format(0) + ".self_attn.q_proj",
    BLOCK.format(0) + ".mlp.down_proj",
    BLOCK.format(2) + ".self_attn.o_proj",
)
"""Those of a random Qwen2-VL that are quantized here: all others stay as they are."""


def stored(name: str) -> str:
    """Return what the folder of a Qwen2-VL calls a layer of its language model."""
    return name.replace("model.language_model.", "model.")


AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def write_folder(
    model_folder: Path, out: Path, config: Mapping[str, Any] | None, layers: Mapping[str, Mapping[str, Tensor]]
) -> Path:
    """Write a model with the weights of some layers replaced by their parts in another format."""
    shutil.copytree(model_folder, out)
    content = json.loads((out / "config.json").read_text())
    if config is not None:
        content["quantization_config"] = dict(config)
    (out / "config.json").write_text(json.dumps(content))
    tensors = load_file(out / "model.safetensors")
    for name, parts in layers.items():
        del tensors[f"{stored(name)}.weight"]
        tensors |= {f"{stored(name)}.{part}": tensor.contiguous() for part, tensor in parts.items()}
    (out / "model.safetensors").unlink()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


def change(folder: Path, **changed: Tensor | None) -> None:
    """Replace tensors of a folder, or take them out, by their keys with `__` for dots."""
    tensors = load_file(folder / "model.safetensors")
    for key, tensor in changed.items():
        tensors.pop(key.replace("__", "."), None)
        if tensor is not None:
            tensors[key.replace("__", ".")] = tensor.contiguous()
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def grid_of(weight: Tensor, bits: int, group: int, symmetric: bool, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return codes (out, in), scales and integer zeros (out, groups) of a weight, rounded to nearest."""
    grouped = weight.unflatten(1, (-1, group))
    top = 2**bits - 1
    if symmetric:
        scale = (grouped.abs().amax(2) / (top / 2)).to(dtype)
        zero = torch.full_like(scale, (top + 1) // 2)
    else:
        low, high = grouped.amin(2).clamp(max=0), grouped.amax(2).clamp(min=0)
        scale = ((high - low) / top).to(dtype)
        zero = (-low / scale.float()).round().clamp(0, top).to(dtype)
    codes = (grouped / scale.float().unsqueeze(2) + zero.float().unsqueeze(2)).round().clamp(0, top).flatten(1)
    return codes.int(), scale, zero.int()


def pack_stream(codes: Tensor, bits: int) -> Tensor:
    """Pack rows of codes into 32-bit words, code i at bits i * bits on, least significant first; slow and plain."""
    rows = []
    for row in codes.tolist():
        number = sum(code << i * bits for i, code in enumerate(row))
        count = -(-len(row) * bits // 32)
        words = [number >> 32 * i & 0xFFFFFFFF for i in range(count)]
        rows.append([word - 2**32 if word >= 2**31 else word for word in words])
    return torch.tensor(rows, dtype=torch.int32)


def gptq_layer(
    weight: Tensor, bits: int, group: int, version: str = "gptq", seed: int | None = None, dtype=torch.float16
) -> tuple[dict[str, Tensor], Tensor]:
    """Return a layer in the GPTQ format and its weight by the definition; with a seed, as of `desc_act`."""
    rows, columns = weight.shape
    if seed is None:
        order = torch.arange(columns)
    else:
        order = torch.randperm(columns, generator=torch.Generator().manual_seed(seed))
    codes, scale, zero = grid_of(weight[:, order], bits, group, False, dtype)
    # version 1 has no zero of 0
    zero = zero.clamp(min=1)
    g_idx = torch.empty(columns, dtype=torch.int32)
    g_idx[order] = torch.arange(columns, dtype=torch.int32) // group
    own = torch.empty_like(codes)
    own[:, order] = codes
    parts = {
        "qweight": pack_stream(own, bits).T,
        "qzeros": pack_stream((zero - int(version == "gptq")).T, bits),
        "scales": scale.T,
        "g_idx": g_idx,
    }
    expected = torch.empty(rows, columns)
    for channel in range(columns):
        at = g_idx[channel]
        expected[:, channel] = (own[:, channel] - zero[:, at]).float() * scale[:, at].float()
    return parts, expected


def awq_layer(weight: Tensor, group: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return a layer in AWQ's gemm format and its weight by the definition."""
    codes, scale, zero = grid_of(weight, 4, group, False, torch.float16)

    def packed(values: Tensor) -> Tensor:
        words = []
        for row in values.tolist():
            numbers = [
                sum(row[start + channel] << 4 * place for place, channel in enumerate(AWQ_ORDER))
                for start in range(0, len(row), 8)
            ]
            words.append([number - 2**32 if number >= 2**31 else number for number in numbers])
        return torch.tensor(words, dtype=torch.int32)

    parts = {"qweight": packed(codes.T), "qzeros": packed(zero.T), "scales": scale.T}
    spread = [part.repeat_interleave(group, dim=1) for part in (zero, scale.float())]
    return parts, (codes - spread[0]).float() * spread[1]
