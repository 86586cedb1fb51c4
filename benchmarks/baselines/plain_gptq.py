"""GPTQ as published, one linear at a time; written for the benchmark, not used by the package."""

import torch

DAMPING = 0.01
BLOCK = 128


def quantize(weight, inputs, bits, group_size):
    """Return the dequantized weight: asymmetric static groups, columns by falling diagonal of the Hessian."""
    hessian = (inputs.t() @ inputs).double()
    order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
    hessian = hessian[order][:, order]
    hessian.diagonal().add_(DAMPING * hessian.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    root = torch.linalg.cholesky(inverse, upper=True).float()
    groups = weight.reshape(len(weight), -1, group_size)
    low, high = groups.amin(dim=2).clamp(max=0), groups.amax(dim=2).clamp(min=0)
    scales = ((high - low) / (2**bits - 1)).clamp(min=2.0**-24).half().float()
    zeros = torch.round(-low / scales).clamp(0, 2**bits - 1)
    remaining, restored = weight[:, order].clone(), torch.empty_like(weight)
    for start in range(0, weight.shape[1], BLOCK):
        stop = min(start + BLOCK, weight.shape[1])
        errors = torch.zeros(len(weight), stop - start)
        for column in range(start, stop):
            values = remaining[:, column]
            group = order[column] // group_size
            scale, zero = scales[:, group], zeros[:, group]
            nearest = (torch.round(values / scale + zero).clamp(0, 2**bits - 1) - zero) * scale
            error = (values - nearest) / root[column, column]
            remaining[:, column + 1 : stop] -= error[:, None] * root[column, column + 1 : stop]
            errors[:, column - start] = error
            restored[:, order[column]] = nearest
        remaining[:, stop:] -= errors @ root[start:stop, stop:]
    return restored
