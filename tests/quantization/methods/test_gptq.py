"""GPTQ against a plain column-by-column solver, against round to nearest, and through models block by block."""

import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from quantrust.errors import QuantrustError
from quantrust.models.family import ScaleGroup
from quantrust.models.loading import load_model
from quantrust.quantization import hessian as hessian_module
from quantrust.quantization.calibration_samples import language_batches, vision_batches
from quantrust.quantization.grid import dequantize
from quantrust.quantization.hessian import HessianSum
from quantrust.quantization.layer_writer import KeptWork
from quantrust.quantization.methods import gptq
from quantrust.quantization.methods.gptq import factor_hessian, quantize_gptq
from quantrust.quantization.methods.rtn import quantize_rtn
from quantrust.quantization.packing import unpack
from quantrust.quantization.quantize import quantize_model
from quantrust.quantization.scheme import resolve_scheme
from quantrust.quantization.walks import sequential
from quantrust.quantization.walks.sequential import Steps, quantize_stack


def correlated(columns: int, tokens: int, seed: int = 0) -> torch.Tensor:
    """Inputs whose channels depend on one another and differ in size, as those of language models do."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(tokens, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    return mixed * torch.rand(columns, generator=generator).exp().pow(2)


def hessian_of(inputs: torch.Tensor) -> torch.Tensor:
    total = HessianSum(inputs.shape[1])
    for part in inputs.split(100):
        total.add(part)
    return total.take()


def plain_gptq(weight: torch.Tensor, hessian: torch.Tensor, bits: int, group_size: int, symmetric: bool, grid=None):
    """Solve one column after another in double precision, inverting what is left of the Hessian for each.

    On the grid of round to nearest, unless other scales and zeros are given.
    """
    if grid is None:
        nearest = quantize_rtn(weight, bits, group_size, symmetric)
        grid = nearest.scale, nearest.zero
    hessian = hessian.double().clone()
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = float(hessian.diagonal()[~dead].mean())
    hessian += 0.01 * hessian.diagonal()[~dead].mean() * torch.eye(len(hessian), dtype=torch.float64)
    order = sorted(range(len(hessian)), key=lambda column: (bool(dead[column]), -float(hessian[column, column])))
    left, weight, codes = list(order), weight.double().clone(), torch.empty_like(weight, dtype=torch.uint8)
    for column in order:
        scale, zero = (part[:, column // group_size].double() for part in grid)
        codes[:, column] = (weight[:, column] / scale + zero).round().clamp(0, 2**bits - 1)
        error = weight[:, column] - (codes[:, column].double() - zero) * scale
        inverse = torch.linalg.inv(hessian[left][:, left])
        # optimal brain surgeon: what removing a column's freedom costs is made up by those still free
        weight[:, left] -= error[:, None] * inverse[0] / inverse[0, 0]
        left = left[1:]
    return codes


@pytest.mark.parametrize(
    ("bits", "group_size", "symmetric"), [(2, 32, False), (3, 96, True), (4, 16, False), (8, 32, False)]
)
def test_codes_are_those_of_a_plain_solver(bits, group_size, symmetric):
    weight = torch.randn(24, 192, generator=torch.Generator().manual_seed(1))
    inputs = correlated(192, 300)
    inputs[:, 5] = 0  # never seen
    hessian = hessian_of(inputs)
    quantized = quantize_gptq(weight, factor_hessian(hessian), bits, group_size, symmetric)
    expected = plain_gptq(weight, hessian, bits, group_size, symmetric)
    # float32 may fall on the other side of a rounding boundary now and then, and the columns after follow
    assert (quantized.codes == expected).float().mean() > 0.995
    nearest = quantize_rtn(weight, bits, group_size, symmetric)
    assert torch.equal(quantized.scale, nearest.scale) and torch.equal(quantized.zero, nearest.zero)
    error, plain = ((other.dequantize() - weight) @ inputs.t() for other in (quantized, nearest))
    assert error.square().sum() < 0.7 * plain.square().sum()


def public_grid(weight: torch.Tensor, bits: int, group_size: int, symmetric: bool):
    """Scales and zeros as the published GPTQ code has them: a range over 2^bits - 1 steps, nothing rounded for storage.

    The symmetric range goes from -max |w| to max |w|.
    """
    groups = weight.double().unflatten(1, (-1, group_size))
    low, high = groups.amin(dim=2).clamp(max=0), groups.amax(dim=2).clamp(min=0)
    if symmetric:
        high = torch.maximum(-low, high)
        return 2 * high / (2**bits - 1), torch.full_like(high, 2 ** (bits - 1))
    scale = (high - low) / (2**bits - 1)
    return scale, (-low / scale).round()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [4, 3, 2])
def test_the_error_of_a_layer_is_that_of_the_public_grid(bits, symmetric):
    ratios = []
    for seed in range(4):
        weight = torch.randn(96, 64, generator=torch.Generator().manual_seed(seed))
        inputs = correlated(64, 300, seed)
        hessian = hessian_of(inputs)
        grid = public_grid(weight, bits, 64, symmetric)
        codes = plain_gptq(weight, hessian, bits, 64, symmetric, grid)
        expected = dequantize(codes, *grid, torch.float64).float()
        found = quantize_gptq(weight, factor_hessian(hessian), bits, 64, symmetric).dequantize()
        error, public = ((other - weight) @ inputs.t() for other in (found, expected))
        ratios.append(float(error.norm() / public.norm()))
    # Scales are stored in float16, so that a few codes fall to the other side and one matrix is a little better or
    # worse. A step of max |w| / (2^(bits - 1) - 1), which leaves a code idle, makes all of them worse: by 5, 12 and
    # 40 % on average at 4, 3 and 2 bits.
    assert sum(ratios) / len(ratios) == pytest.approx(1, abs=0.003)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_an_identity_hessian_gives_round_to_nearest_to_the_bit(bits, symmetric):
    weight = torch.randn(40, 320, generator=torch.Generator().manual_seed(2))
    weight[3, 64:96], weight[4] = 0.25, 0.0
    for hessian in (torch.eye(320), 7.3 * torch.eye(320), torch.zeros(320, 320)):
        quantized = quantize_gptq(weight, factor_hessian(hessian), bits, 32, symmetric)
        nearest = quantize_rtn(weight, bits, 32, symmetric)
        for part in ("codes", "scale", "zero"):
            assert torch.equal(getattr(quantized, part), getattr(nearest, part))


def test_constant_groups_stay_exact_and_columns_that_are_never_read_are_rounded_to_nearest():
    inputs = correlated(64, 200, seed=3)
    inputs[:, 40] = 0
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(4))
    weight[2, 16:32], weight[3, :16] = -0.375, 0.0
    quantized = quantize_gptq(weight, factor_hessian(hessian_of(inputs)), 2, 16)
    restored = quantized.dequantize()
    assert torch.equal(restored[2, 16:32], weight[2, 16:32]) and torch.equal(restored[3, :16], weight[3, :16])
    assert torch.equal(quantized.codes[:, 40], quantize_rtn(weight, 2, 16).codes[:, 40])


def test_fewer_tokens_than_channels_are_enough():
    weight = torch.randn(8, 128, generator=torch.Generator().manual_seed(5))
    inputs = 1e3 * correlated(128, 20, seed=6)
    quantized = quantize_gptq(weight, factor_hessian(hessian_of(inputs)), 3, 64)
    error, plain = ((other.dequantize() - weight) @ inputs.t() for other in (quantized, quantize_rtn(weight, 3, 64)))
    assert error.square().sum() < plain.square().sum()


def published_gptq(weight: torch.Tensor, hessian: torch.Tensor, bits: int, group_size: int):
    """Return the weight solved as published: by the factor of the inverse, in double precision, on RTN's grid."""
    grid = quantize_rtn(weight, bits, group_size)
    order = hessian.diagonal().argsort(descending=True, stable=True)
    damped = hessian.double()[order][:, order]
    damped.diagonal().add_(gptq.DAMPING * damped.diagonal().mean())
    root = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(damped)), upper=True)
    left, codes = weight[:, order].double(), torch.empty_like(grid.codes)
    for place, column in enumerate(order.tolist()):
        scale, zero = (part[:, column // group_size].double() for part in (grid.scale, grid.zero))
        code = (left[:, place] / scale + zero).round().clamp(0, 2**bits - 1)
        codes[:, column] = code
        error = (left[:, place] - (code - zero) * scale) / root[place, place]
        left[:, place:] -= error[:, None] * root[place, place:]
    return dequantize(codes, grid.scale, grid.zero)


def copied_outliers(columns: int, tokens: int, copies: int) -> torch.Tensor:
    """Inputs of small integers, so that float32 holds their Hessian exactly, with large channels that are all alike."""
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randint(-1, 2, (tokens, columns), generator=generator).float()
    inputs[:, 7 : 7 + copies] = 200 * inputs[:, 7:8] + inputs[:, 100 : 100 + copies]
    return inputs


def squared_error(restored: torch.Tensor, weight: torch.Tensor, inputs: torch.Tensor) -> float:
    return float(((restored - weight).double() @ inputs.double().t()).square().sum())


@pytest.mark.parametrize(
    "inputs",
    [correlated(320, 800), correlated(320, 80), copied_outliers(320, 80, 12)],
    ids=["more tokens than channels", "fewer", "outliers alike"],
)
def test_the_error_of_a_layer_is_that_of_the_published_procedure_in_double_precision(inputs):
    weight = torch.randn(192, 320, generator=torch.Generator().manual_seed(8))
    hessian = hessian_of(inputs)
    found = quantize_gptq(weight, factor_hessian(hessian), 4, 64).dequantize()
    expected = published_gptq(weight, hessian, 4, 64)
    error = squared_error(expected, weight, inputs)
    assert squared_error(found, weight, inputs) == pytest.approx(error, rel=0.01)
    assert error < 0.6 * squared_error(quantize_rtn(weight, 4, 64).dequantize(), weight, inputs)


def test_outliers_that_float32_cannot_factor_are_factored_in_double_precision(monkeypatch):
    # The wider a layer, the more often may its largest channel hold the damping; a narrow one takes a smaller damping.
    monkeypatch.setattr(gptq, "DAMPING", 3e-6)
    weight = torch.randn(192, 512, generator=torch.Generator().manual_seed(8))
    inputs = copied_outliers(512, 256, 16)
    hessian = hessian_of(inputs)
    found = quantize_gptq(weight, factor_hessian(hessian), 4, 64).dequantize()
    error = squared_error(published_gptq(weight, hessian, 4, 64), weight, inputs)
    assert squared_error(found, weight, inputs) == pytest.approx(error, rel=0.01)
    monkeypatch.setattr(gptq, "FINE", float("inf"))
    with pytest.raises(QuantrustError, match="not positive definite"):
        factor_hessian(hessian)


def test_a_hessian_of_many_columns_is_symmetric_and_the_sum_over_all_inputs(monkeypatch):
    monkeypatch.setattr(hessian_module, "SUMMED_COLUMNS", 16)
    inputs = torch.randint(-9, 10, (250, 40), generator=torch.Generator().manual_seed(9)).float()
    assert torch.equal(hessian_of(inputs), inputs.t() @ inputs)


def test_activations_that_are_not_finite_are_refused():
    with pytest.raises(QuantrustError, match="calibration activations hold NaN or infinite values"):
        factor_hessian(hessian_of(torch.tensor([[1.0, float("nan")]])))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, hidden: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return hidden + self.second(self.first(hidden).relu()) + shift


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for number, block in enumerate(self.blocks):
            hidden = block(hidden, shift=torch.tensor(float(number)))
        return hidden


def test_each_block_is_calibrated_on_what_the_quantized_blocks_before_yield():
    torch.manual_seed(0)
    model, batches = Stack().requires_grad_(False), [torch.randn(2, 5, 16), torch.randn(1, 7, 16)]
    flags = [torch.ones(10, dtype=torch.bool), torch.arange(7) > 2]
    blocks = [f"blocks.{number}" for number in range(3)]
    groups = {
        block: [ScaleGroup(None, (f"{block}.{name}",), f"{block}.{name}", "mlp") for name in ("first", "second")]
        for block in blocks
    }
    chosen = {f"{block}.{name}" for block in blocks for name in ("first", "second")} - {"blocks.1.second"}

    # the same by hand: run everything as it now is up to the layer, and keep what enters it
    expected, plain = {}, Stack().requires_grad_(False)
    plain.load_state_dict(model.state_dict())
    for block in blocks:
        read = {}
        for name in ("first", "second"):
            rows = []
            hook = plain.get_submodule(f"{block}.{name}").register_forward_pre_hook(
                lambda module, args, rows=rows: rows.append(args[0])
            )
            for batch in batches:
                plain(batch)
            hook.remove()
            read[name] = torch.cat([row.flatten(0, -2)[kept] for row, kept in zip(rows, flags, strict=True)])
        for name in ("first", "second"):
            if f"{block}.{name}" in chosen:
                layer = plain.get_submodule(f"{block}.{name}")
                factor = factor_hessian(read[name].t() @ read[name])
                layer.weight.copy_(quantize_gptq(layer.weight, factor, 2, 16).dequantize())
                expected[f"{block}.{name}"] = layer.weight.clone()

    finished = []

    def quantize(name, factor):
        layer = model.get_submodule(name)
        layer.weight.copy_(quantize_gptq(layer.weight, factor, 2, 16).dequantize())

    runs = [(partial(model, batch), kept) for batch, kept in zip(batches, flags, strict=True)]
    hidden = quantize_stack(model, blocks, groups, runs, chosen, Steps(factor_hessian, quantize, finished.append))
    assert finished == blocks
    for name, weight in expected.items():
        torch.testing.assert_close(model.get_submodule(name).weight, weight)
    for states, batch in zip(hidden, batches, strict=True):
        torch.testing.assert_close(states.get(), model(batch))


def test_a_layer_whose_inputs_are_not_finite_is_named():
    model = Stack().requires_grad_(False)
    model.blocks[1].first.bias[0] = float("inf")
    groups = {f"blocks.{k}": [ScaleGroup(None, (f"blocks.{k}.second",), f"blocks.{k}.second", "mlp")] for k in range(3)}
    runs = [(partial(model, torch.randn(2, 16)), None)]
    with pytest.raises(QuantrustError, match=r"blocks\.1\.second: calibration activations hold NaN or infinite"):
        quantize_stack(
            model,
            list(groups),
            groups,
            runs,
            {"blocks.0.second", "blocks.1.second"},
            Steps(factor_hessian, lambda *_: None, print),
        )


def plain_hessians(family, model, processor, table, names):
    """Run the whole model on one sample after another, so that nothing is padding; X^T X of what enters each linear."""
    sums = dict.fromkeys(names, 0.0)

    def read(module, args, name):
        inputs = args[0].flatten(0, -2).double()
        sums[name] = sums[name] + inputs.t() @ inputs

    hooks = [model.get_submodule(name).register_forward_pre_hook(partial(read, name=name)) for name in names]
    for sample in table.iter_slices(1):
        (pixels,) = vision_batches(family, processor, sample)
        images = family.encode_images(model, pixels)
        (inputs,) = language_batches(family, model, processor, sample, images)
        hidden, _ = family.read_prompts(model, inputs)
        family.logits(model, hidden)
    for hook in hooks:
        hook.remove()
    return sums


@pytest.mark.parametrize("family_name", ["qwen2_vl", "idefics3"])
def test_the_codes_of_a_model_are_those_of_a_plain_walk_through_it(
    family_name, padded_folders, calibration_tables, tmp_path
):
    folder, table = padded_folders[family_name], calibration_tables[family_name]
    quantize_model(folder, "gptq-w3g32-full", table, tmp_path / "out")
    layers = json.loads((tmp_path / "out" / "quantization.json").read_text())["layers"]
    groups = {layer["layer"]: layer["group"] for layer in layers if layer["method"] == "gptq"}
    stored = load_file(tmp_path / "out" / "model.safetensors")
    family, model, processor = load_model(folder)
    model.requires_grad_(False)

    def codes_of(name):
        return unpack(stored[f"{name}.weight.codes"], 3, model.get_submodule(name).weight.shape[1])

    def put_in_place(name):
        scale, zero = stored[f"{name}.weight.scale"], stored[f"{name}.weight.zero"]
        model.get_submodule(name).weight.copy_(dequantize(codes_of(name), scale, zero))

    # what is looked up is quantized before anything reads it
    assert {layer["layer"] for layer in layers if layer["method"] == "rtn"} == {family.embedding}
    put_in_place(family.embedding)
    parts = [block for part in ("vision", "connector", "language") for block in family.blocks(model, part)]
    shares = {}
    for part in [*parts, "lm_head"]:
        names = [name for name in groups if f"{name}.".startswith(f"{part}.")]
        hessians = plain_hessians(family, model, processor, table, names)
        for name in names:
            expected = plain_gptq(model.get_submodule(name).weight, hessians[name], 3, groups[name], False)
            shares[name] = float((codes_of(name) != expected).any(dim=1).float().mean())
        for name in names:
            # the stored codes, so that one which fell to the other side says nothing about later layers
            put_in_place(name)
    assert shares.keys() == groups.keys()
    # Rows are solved by themselves. Float32 sums in another order than these may let a code fall to the other side,
    # with those after it in its row (no more than one row of a layer was seen to differ), or swap two columns whose
    # diagonals differ by a millionth (a twentieth of the rows). A Hessian of other inputs, be it of padding as well,
    # was seen to change nine tenths.
    assert {name: share for name, share in shares.items() if share > 0.1} == {}


def scheme_of(name: str, calibrated_on: str, **bits: int):
    rows = [{"component": component, "bits": count} for component, count in bits.items()]
    table = {"method": "gptq", "group": 32, "symmetric": False, "calibrated_on": calibrated_on, "table": rows}
    return resolve_scheme(name, table)


def codes_by_layer(folder, part: str) -> dict[str, torch.Tensor]:
    stored = load_file(folder / "model.safetensors")
    return {name: codes for name, codes in stored.items() if part in name and name.endswith(".codes")}


@pytest.mark.parametrize("family_name", ["qwen2_vl", "idefics3"])
def test_on_the_unquantized_model_codes_depend_on_no_other_layers_bits_and_are_found_once(
    family_name, padded_folders, calibration_tables, tmp_path, monkeypatch
):
    folder, table = padded_folders[family_name], calibration_tables[family_name]
    found = {}
    for calibrated_on in ("quantized", "unquantized"):
        for vision in (2, 16):
            out = tmp_path / f"{calibrated_on}-{vision}"
            quantize_model(folder, scheme_of("apart", calibrated_on, vision=vision, language=3), table, out)
            found[calibrated_on, vision] = codes_by_layer(
                out, "language" if family_name == "qwen2_vl" else "text_model"
            )
    for calibrated_on, alike in (("quantized", False), ("unquantized", True)):
        narrow, whole = found[calibrated_on, 2], found[calibrated_on, 16]
        assert narrow.keys() == whole.keys() and len(narrow) > 10
        assert all(torch.equal(narrow[name], whole[name]) for name in narrow) == alike

    kept = KeptWork()
    quantize_model(folder, scheme_of("apart", "unquantized", vision=2, language=4), table, tmp_path / "a", kept=kept)
    quantize_model(folder, scheme_of("apart", "unquantized", vision=16, language=3), table, tmp_path / "b", kept=kept)
    monkeypatch.setattr(sequential, "quantize_stack", None)
    quantize_model(folder, scheme_of("apart", "unquantized", vision=2, language=3), table, tmp_path / "c", kept=kept)
    for name in ("model.safetensors", "quantization.json"):
        assert (tmp_path / "c" / name).read_bytes() == (tmp_path / "unquantized-2" / name).read_bytes()
