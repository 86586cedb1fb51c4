"""AWQ and MBQ as their definitions read; written for the benchmark, not used by the package.

All samples go through in one padded batch; the backward pass is that of training, with the gradients of all weights;
every candidate writes its weights into the inspected module, runs it and loads the saved state back.
"""

from statistics import median

import torch
from torch.nn import functional

from quantrust.models.family import Role

EXPONENTS = [step / 20 for step in range(20)]


def fake_quantize(weight, bits, group_size):
    """Return the weight rounded to the nearest point of its groups' asymmetric grids, scales in float16."""
    groups = weight.reshape(-1, group_size)
    low, high = groups.amin(dim=1, keepdim=True).clamp(max=0), groups.amax(dim=1, keepdim=True).clamp(min=0)
    scale = ((high - low) / (2**bits - 1)).clamp(min=2.0**-24).half().float()
    zero = torch.round(-low / scale).clamp(0, 2**bits - 1)
    codes = torch.round(groups / scale + zero).clamp(0, 2**bits - 1)
    return ((codes - zero) * scale).reshape(weight.shape)


def run(model, inputs):
    """Return the last hidden states of the language model."""
    return model.model.language_model(
        inputs_embeds=inputs.inputs_embeds,
        attention_mask=inputs.attention_mask,
        position_ids=inputs.position_ids,
        use_cache=False,
    ).last_hidden_state


def modality_ratios(model, inputs):
    """Return the ratio of image to answer gradients of each block, for attention and for MLP."""
    model.requires_grad_(True)
    blocks = model.model.language_model.layers
    outputs, gradients = {}, {}
    for index, block in enumerate(blocks):
        for kind, linear in (("attention", block.self_attn.o_proj), ("mlp", block.mlp.down_proj)):
            outputs[kind, index] = linear.register_full_backward_hook(
                lambda module, grad_in, grad_out, place=(kind, index): gradients.update({place: grad_out[0].abs()})
            )
    hidden = run(model, inputs)
    logits = model.lm_head(hidden)[:, :-1]
    labels = torch.where(inputs.roles == Role.ANSWER, inputs.token_ids, -100)[:, 1:]
    sum(functional.cross_entropy(*sample) for sample in zip(logits, labels, strict=True)).backward()
    for hook in outputs.values():
        hook.remove()
    model.requires_grad_(False)
    model.zero_grad(set_to_none=True)
    ratios = {}
    for place, gradient in gradients.items():
        image, answer = (
            sum(float(rows[chosen].mean()) for rows, chosen in zip(gradient, inputs.roles == role, strict=True))
            for role in (Role.IMAGE, Role.ANSWER)
        )
        ratios[place] = image / answer
    used = {}
    for kind in ("attention", "mlp"):
        middle = median(ratios[kind, index] for index in range(len(blocks)))
        used[kind] = [max(ratios[kind, index], middle) for index in range(len(blocks))]
    return used


def token_weights(roles, ratio):
    """Return what the error of each token counts: all the same without a ratio, image tokens the ratio with one."""
    if ratio is None:
        return (roles != Role.PAD).float()
    return (roles == Role.ANSWER).float() + ratio * (roles == Role.IMAGE).float()


def search_group(linears, inspected, run, magnitude, weights, power, bits, group_size):
    """Return each exponent's error and scale."""
    reference = run()
    saved = {name: value.clone() for name, value in inspected.state_dict().items()}
    errors, scales = [], []
    for exponent in EXPONENTS:
        scale = magnitude.pow(exponent).clamp(min=1e-4)
        scale = scale / (scale.max() * scale.min()).sqrt()
        for linear in linears:
            linear.weight.data.mul_(scale)
            linear.weight.data = fake_quantize(linear.weight.data, bits, group_size) / scale
        change = (run() - reference).abs().pow(power).mean(dim=-1)
        errors.append(float((change * weights).double().sum() / (weights > 0).sum()))
        scales.append(scale)
        inspected.load_state_dict(saved)
    return errors, scales


@torch.no_grad()
def search(model, inputs, ratios, power, bits, group_size):
    """Yield the names of each group's linears, and the errors and scales of its exponents."""
    stack = model.model.language_model
    arguments = {}
    hook = stack.layers[0].register_forward_pre_hook(
        lambda module, args, kwargs: arguments.update(kwargs, hidden_states=args[0]), with_kwargs=True
    )
    run(model, inputs)
    hook.remove()
    hidden = arguments.pop("hidden_states")
    real = inputs.roles != Role.PAD
    for index, block in enumerate(stack.layers):
        attention, mlp = block.self_attn, block.mlp
        read = {}
        hooks = [
            module.register_forward_pre_hook(lambda module, args, name=name, read=read: read.update({name: args[0]}))
            for name, module in (("qkv", attention.q_proj), ("mlp", mlp.gate_proj), ("down", mlp.down_proj))
        ]
        after = block(hidden, **arguments)
        for hook in hooks:
            hook.remove()
        groups = [
            (
                "attention",
                "qkv",
                {"self_attn.q_proj": attention.q_proj, "self_attn.k_proj": attention.k_proj}
                | {"self_attn.v_proj": attention.v_proj},
                attention,
                lambda states, attention=attention: attention(states, **arguments)[0],
            ),
            ("mlp", "mlp", {"mlp.gate_proj": mlp.gate_proj, "mlp.up_proj": mlp.up_proj}, mlp, mlp),
            ("mlp", "down", {"mlp.down_proj": mlp.down_proj}, mlp.down_proj, mlp.down_proj),
        ]
        for kind, name, linears, inspected, forward in groups:
            states = read[name]
            weights = token_weights(inputs.roles, None if ratios is None else ratios[kind][index])
            errors, scales = search_group(
                linears.values(),
                inspected,
                lambda forward=forward, states=states: forward(states),
                states[real].abs().mean(dim=0),
                weights,
                power,
                bits,
                group_size,
            )
            yield [f"{index}.{linear}" for linear in linears], errors, scales
        hidden = after
