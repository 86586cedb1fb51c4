"""gemlite's kernels on a CPU: a program that runs `GemliteWeight` in triton's interpreter and compares it.

Run in a process of its own, with gemlite and triton on its path and TRITON_INTERPRET=1. gemlite asks for a GPU when it
is imported, and triton's tuner when a kernel is called; both get stand-ins. The tuner measures nothing. It takes the
setting that it is told to, so that any setting that a GPU may find the fastest can be tried.

The interpreter differs from a GPU in three ways, which are mended here. It multiplies matrices of bfloat16 by their bit
patterns. It cuts float32 off to bfloat16 instead of rounding to the nearest. It counts loops in numbers of Python,
which lack the methods of triton's.

Every address that a kernel reads is checked as well. A GPU may read beyond the end of a tensor without an error.

Reads cases from the standard input, as JSON, and prints the results as JSON.
"""

import json
import sys
from types import SimpleNamespace

import numpy as np
import torch
import triton
import triton.language as tl
from triton.runtime import interpreter

from quantrust.quantization.grid import QuantizedWeight
from quantrust.quantization.kernels.cuda import GemliteWeight
from quantrust.quantization.linear import PackedWeight
from quantrust.quantization.methods.hqq import quantize as quantize_hqq
from quantrust.quantization.methods.rtn import quantize_rtn

U = 2.0**-8
"""The largest relative error of rounding to bfloat16."""


class Tuner:
    """Stands in for measuring: the setting whose place is `wanted` is the fastest."""

    wanted = asked = 0

    def __call__(self, call, quantiles):
        self.asked += 1
        return [float(self.asked - 1 != self.wanted)] * len(quantiles)


class Driver:
    """Stands in for triton's driver of a GPU."""

    utils = SimpleNamespace(get_device_properties=lambda device: {"max_shared_mem": 232448})
    tuner = Tuner()

    def get_current_target(self):
        return SimpleNamespace(backend="cuda", arch=90, warp_size=32)

    def get_current_device(self):
        return 0

    def get_active_torch_device(self):
        return torch.device("cpu")

    def get_device_interface(self):
        return torch.cuda

    def get_benchmarker(self):
        return self.tuner


class Memory:
    """Stands in for the interpreter's memory: counts the elements that are read outside of `tensors`.

    What lies there is not read. The kernel gets the worst that it can be, which is not a number.
    """

    def __init__(self, memory):
        self.memory, self.tensors, self.outside = memory, [], 0

    def __getattr__(self, name):
        return getattr(self.memory, name)

    def load(self, addresses, mask, other, dtype):
        size = np.dtype(dtype).itemsize
        outside = mask.copy()
        for tensor in self.tensors:
            storage = tensor.untyped_storage()
            first, last = storage.data_ptr(), storage.data_ptr() + storage.nbytes() - size
            outside &= (addresses < first) | (addresses > last)
        if not outside.any():
            return self.memory.load(addresses, mask, other, dtype)
        self.outside += int(outside.sum())
        found = self.memory.load(addresses, mask & ~outside, other, dtype)
        found[outside] = np.frombuffer(b"\xff" * size, dtype)[0]
        return found


memory = Memory(interpreter._interpreter)


def install_stand_ins():
    """Let gemlite find a GPU where there is none, and mend the interpreter."""
    device = SimpleNamespace(name="none", multi_processor_count=132, major=9, minor=0)
    torch.cuda.get_device_capability = lambda number=None: (device.major, device.minor)
    torch.cuda.get_device_name = lambda number=None: device.name
    torch.cuda.get_device_properties = lambda number=None: device
    torch.cuda.current_device = lambda: 0
    triton.runtime.driver.set_active(Driver())
    interpreter._interpreter = memory
    cast, patch_language = interpreter.InterpreterBuilder.cast_impl, interpreter._patch_lang

    def widened(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle.data
        return (handle.data.astype(np.uint32) << 16).view(np.float32)

    def dot(self, a, b, d, input_precision, max_num_imprecise_acc):
        product = np.matmul(widened(a), widened(b), dtype=d.data.dtype)
        return interpreter.TensorHandle(product + d.data, d.dtype.scalar)

    def rounding_cast(self, handle, dtype):
        if handle.dtype.scalar != tl.float32 or dtype.scalar != tl.bfloat16:
            return cast(self, handle, dtype)
        rounded = torch.from_numpy(np.ascontiguousarray(handle.data)).bfloat16().view(torch.uint16).numpy()
        return interpreter.TensorHandle(rounded, tl.bfloat16)

    def patch_ranges(function):
        scope = patch_language(function)
        plain = tl.range

        def counted(*arguments, **settings):
            for number in plain(*arguments, **settings):
                yield tl.tensor(interpreter.TensorHandle(np.array([number], dtype=np.int32), tl.int32), tl.int32)

        scope.set_attr(tl, "range", counted)
        return scope

    interpreter.InterpreterBuilder.create_dot = dot
    interpreter.InterpreterBuilder.cast_impl = rounding_cast
    interpreter._patch_lang = patch_ranges


def quantized(rows, columns, bits, group_size, symmetric=False, ordered=False):
    """Return a random weight on HQQ's grid with float zeros or on a symmetric one, its columns permuted or not."""
    generator = torch.Generator().manual_seed(rows * columns + bits)
    weight = torch.randn(rows, columns, generator=generator) * 0.05 + torch.randn(rows, 1, generator=generator) * 0.05
    if symmetric:
        found = quantize_rtn(weight, bits, group_size, symmetric=True)
    else:
        found = quantize_hqq(weight, bits, group_size)
    order = torch.randperm(columns, generator=generator).int() if ordered else None
    return PackedWeight.from_quantized(
        QuantizedWeight(found.codes, found.scale, found.zero, bits, found.group_size, order)
    )


def compare(shape, bits, group_size, counts, symmetric=False, all_settings=False):
    """Multiply one weight by so many rows of activations, with settings that the tuner may choose.

    Returns
    -------
    list of dict
        Of each product: its kernel, rows of activations and setting, the largest share of the bound that an error
        takes, and how many elements were read outside of the tensors.
    """
    import gemlite.core as gemlite

    packed = quantized(*shape, bits, group_size, symmetric)
    weight, dense = GemliteWeight(packed), packed.dequantize(torch.float32).double()
    product, results = weight.product, []
    for count in counts:
        inputs = torch.randn(count, weight.columns).bfloat16()
        memory.tensors = [product.W_q, product.scales, product.zeros, inputs]
        exact, most = inputs.double() @ dense.T, inputs.double().abs() @ dense.abs().T
        name = gemlite.get_matmul_type(count, product.W_nbits)
        # products of matrices round the weights to bfloat16; all add up in float32
        bound = ((U if name.startswith("GEMM") else 0) + 2 * weight.columns * 2.0**-23) * most
        kernel = gemlite.GEMLITE_TRITON_MAPPING[name].kernel[0]
        settings = settings_of(kernel, product, inputs)
        for place in range(len(settings)) if all_settings else extremes(settings):
            kernel.cache.clear()
            Driver.tuner.wanted, Driver.tuner.asked, memory.outside = place, 0, 0
            outputs = product(inputs)
            assert outputs.dtype == torch.float32
            share = ((outputs.double() - exact).abs() / bound).max()
            results.append(
                {
                    "kernel": name,
                    "rows": count,
                    "setting": settings[place],
                    # what is not a number is below no bound
                    "share_of_bound": float(share.nan_to_num(nan=1e9, posinf=1e9)),
                    "outside": memory.outside,
                }
            )
    return results


def settings_of(kernel, product, inputs):
    """Return what the tuner may choose from for a product."""
    found, prune, run = [], kernel.prune_configs, kernel.fn.run

    def noting(arguments):
        found.extend(prune(arguments))
        return found[:1]

    kernel.cache.clear()
    kernel.prune_configs, kernel.fn.run = noting, lambda *arguments, **settings: None
    try:
        product(inputs)
    finally:
        kernel.prune_configs, kernel.fn.run = prune, run
    return [dict(config.kwargs) for config in found]


def extremes(settings):
    """Return the places of the settings that take the most output channels, and the most input channels, together."""
    wide = [setting["BLOCK_SIZE_N"] for setting in settings]
    deep = [setting["BLOCK_SIZE_K"] * setting.get("SPLIT_K", 1) for setting in settings]
    places = range(len(settings))
    return sorted({max(places, key=lambda k: (wide[k], deep[k])), max(places, key=lambda k: (deep[k], wide[k]))})


def linear_is_the_rounded_product():
    """Return whether `linear` orders its inputs, rounds the product once, adds the bias, and keeps shapes."""
    packed = quantized(16, 64, 8, 32, ordered=True)
    weight, bias = GemliteWeight(packed), torch.randn(16).bfloat16()
    inputs = torch.randn(2, 1, 64).bfloat16()
    ordered = inputs[..., packed.order].contiguous()
    memory.tensors = [weight.product.W_q, weight.product.scales, weight.product.zeros, ordered]
    product = weight.product(ordered)
    exact = inputs.double() @ packed.dequantize(torch.float32).double().T
    Memory.load = lambda self, *arguments: self.memory.load(*arguments)
    outputs = weight.linear(inputs, bias)
    return (
        torch.allclose(product.double(), exact, atol=1e-4)
        and torch.equal(outputs, product.bfloat16() + bias)
        and outputs.dtype == torch.bfloat16
        and weight.linear(inputs[:0], bias).shape == (0, 1, 16)
    )


def packing_on_a_gpu_is_that_on_a_cpu(bits):
    """Return whether the kernel that packs codes on a GPU gives the words that are packed here."""
    from gemlite.bitpack import pack_weights_over_cols_torch, pack_weights_over_cols_triton

    codes = torch.randint(0, 2**bits, (8, 32), dtype=torch.uint8)
    memory.tensors = [codes]
    ways = (pack_weights_over_cols_torch, pack_weights_over_cols_triton)
    plain, kernel = (pack(codes, bits, 32, transpose=True)[0] for pack in ways)
    return torch.equal(plain, kernel)


def main():
    """Answer the cases of the standard input."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    install_stand_ins()
    results = {
        "cases": {name: compare(**case) for name, case in json.load(sys.stdin).items()},
        "packing": [packing_on_a_gpu_is_that_on_a_cpu(bits) for bits in (2, 8)],
        "linear": linear_is_the_rounded_product(),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
