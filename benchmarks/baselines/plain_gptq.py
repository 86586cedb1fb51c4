"""GPTQ as published, block by block and one linear at a time; written for the benchmark, not used by the package.

All samples go through a block in one padded batch, with its other weights as they are; the quantized block is run once
more for what the next one reads. Every linear has a Hessian and a factorisation of its own. The Hessian is factored in
double precision, which random inputs with outlier channels need; the name is taken over by each result in turn, as in
the published code, so that no more than two matrices of its size are held.
"""

import torch

DAMPING = 0.01
BLOCK = 128
LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
LINEARS += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


@torch.no_grad()
def quantize_stack(model, inputs, bits, group_size):
    """Quantize the linears of every block in place; yield their names, weights and what became of those."""
    stack = model.model.language_model
    arguments = {}
    hook = stack.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: arguments.update(kwargs, hidden_states=args[0]), with_kwargs=True
    )
    stack(
        inputs_embeds=inputs.inputs_embeds,
        attention_mask=inputs.attention_mask,
        position_ids=inputs.position_ids,
        use_cache=False,
    )
    hook.remove()
    hidden = arguments.pop("hidden_states")
    for index, block in enumerate(stack.layers):
        read = {}
        hooks = [
            block.get_submodule(name).register_forward_pre_hook(
                lambda module, args, name=name, read=read: read.update({name: args[0][inputs.attention_mask]})
            )
            for name in LINEARS
        ]
        block(hidden, **arguments)
        for hook in hooks:
            hook.remove()
        for name in LINEARS:
            linear = block.get_submodule(name)
            restored = quantize(linear.weight.data, read[name], bits, group_size)
            yield f"{index}.{name}", linear.weight.data, restored
            linear.weight.data = restored
        hidden = block(hidden, **arguments)


def quantize(weight, inputs, bits, group_size):
    """Return the dequantized weight: asymmetric static groups, columns by falling diagonal of the Hessian."""
    hessian = (inputs.t() @ inputs).double()
    order = torch.argsort(hessian.diagonal(), descending=True, stable=True)
    hessian = hessian[order[:, None], order]
    hessian.diagonal().add_(DAMPING * hessian.diagonal().mean())
    hessian = torch.linalg.cholesky(hessian)
    hessian = torch.cholesky_inverse(hessian)
    root = torch.linalg.cholesky(hessian, upper=True).float()
    del hessian
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
