"""The scale search against a plain one, equivalent scaling, and MBQ's modality ratios."""

from functools import partial

import pytest
import torch
from torch import nn

from quantrust.errors import QuantrustError
from quantrust.models.components import NormKind
from quantrust.models.family import Role, ScaleGroup
from quantrust.models.skeleton import build_skeleton
from quantrust.quantization.folding import fold_scale
from quantrust.quantization.methods import awq, mbq
from quantrust.quantization.methods.rtn import quantize_rtn
from quantrust.quantization.scale_search import EXPONENTS, Batch, channel_scale, search_stack, stored_channels

RTN = partial(quantize_rtn, bits=3, group_size=32)


def decode(family, model, inputs):
    return family.read_prompts(model, inputs)[0]


def batches_of(family, model, prompts, weigh):
    return [
        Batch(
            partial(decode, family, model, inputs),
            inputs.roles.flatten() != Role.PAD,
            {kind: [weigh(inputs.roles.flatten())] * 3 for kind in mbq.KINDS},
        )
        for inputs in prompts
    ]


def search(family, model, component, batches, power, quantize=RTN):
    blocks = family.blocks(model, component)
    groups = {block: family.scale_groups(model, block) for block in blocks}
    quantizers = {layer.name: quantize for layer in family.layers(model) if layer.component == component}
    return [choice for found in search_stack(model, blocks, groups, batches, quantizers, power) for choice in found]


def plain_search(model, group, run, weights, real, power):
    """Quantize in place, run the whole model, put back: one group, every exponent, no shortcut."""
    inspected, reader = model.get_submodule(group.inspected), model.get_submodule(group.linears[0])
    outputs, inputs = [], []
    hooks = [
        inspected.register_forward_hook(lambda m, a, o: outputs.append(o[0] if isinstance(o, tuple) else o)),
        reader.register_forward_pre_hook(lambda m, a: inputs.append(a[0])),
    ]
    run()
    reference, read = outputs.pop().flatten(0, -2), inputs.pop().flatten(0, -2)
    magnitude = read[real].abs().mean(dim=0)
    errors = []
    for exponent in EXPONENTS:
        scale = magnitude.pow(exponent).clamp(min=1e-4)
        scale = scale / (scale.max() * scale.min()).sqrt()
        saved = {name: model.get_submodule(name).weight.data for name in group.linears}
        for name, weight in saved.items():
            model.get_submodule(name).weight.data = RTN(weight * scale).dequantize() / scale
        run()
        for name, weight in saved.items():
            model.get_submodule(name).weight.data = weight
        change = (outputs.pop().flatten(0, -2) - reference).abs().pow(power).mean(dim=-1)
        errors.append(float((change * weights).sum() / (weights > 0).sum()))
    for hook in hooks:
        hook.remove()
    return errors


def test_chooses_what_a_plain_search_chooses(calibrated):
    family, model, _, prompts = calibrated
    (inputs,) = prompts
    roles = inputs.roles.flatten()
    blocks = family.blocks(model, "language")
    for power, weigh in ((2, awq.token_weights), (1, partial(mbq.token_weights, ratio=0.2))):
        choices = search(family, model, "language", batches_of(family, model, prompts, weigh), power)
        choices = {choice.group: choice for choice in choices}
        for group in (group for block in (blocks[0], blocks[-1]) for group in family.scale_groups(model, block)):
            if group.previous is None:
                assert group not in choices
                continue
            errors = plain_search(
                model, group, partial(decode, family, model, inputs), weigh(roles), roles != Role.PAD, power
            )
            choice = choices[group]
            assert choice.exponent == EXPONENTS[errors.index(min(errors))]
            assert choice.error == pytest.approx(min(errors), rel=1e-4)
            assert choice.unscaled_error == pytest.approx(errors[0], rel=1e-4)
            assert choice.runner_up_error == pytest.approx(sorted(errors)[1], rel=1e-4)
            assert errors[EXPONENTS.index(choice.runner_up)] == pytest.approx(choice.runner_up_error, rel=1e-4)
            assert choice.runner_up != choice.exponent


@pytest.mark.parametrize("component", ["vision", "language"])
def test_one_group_of_linears_after_another_is_stored(component, model_folders):
    family, model = build_skeleton(model_folders["qwen2_vl"])
    for block in family.blocks(model, component):
        groups = family.scale_groups(model, block)
        hidden, wide = (model.get_submodule(groups[place].linears[0]).in_features for place in (0, -1))
        assert wide > hidden
        # attention or MLP, what it reads and yields, or what their last linears read, if it is scaled: that of the MLP
        # of the vision tower is not
        assert stored_channels(model, groups) == max(2 * hidden, wide if component == "language" else 0)


def test_mbq_with_ratios_of_one_is_awq_with_absolute_errors(calibrated):
    family, model, _, prompts = calibrated
    balanced = batches_of(family, model, prompts, partial(mbq.token_weights, ratio=1.0, other=1.0))
    plain = batches_of(family, model, prompts, awq.token_weights)
    for one, other in zip(
        search(family, model, "language", balanced, power=1),
        search(family, model, "language", plain, power=1),
        strict=True,
    ):
        assert torch.equal(one.scale, other.scale) and one.error == other.error


@pytest.mark.parametrize("component", ["vision", "connector", "language"])
def test_folding_leaves_the_function_unchanged(calibrated, component):
    family, model, images, prompts = calibrated
    if component != "language":
        runs = [partial(family.encode_images, model, inputs) for inputs in images]
        batches = [Batch(run) for run in runs]
        before = [image.features for run in runs for image in run()]
    else:
        batches = batches_of(family, model, prompts, awq.token_weights)
        before = [decode(family, model, inputs)[inputs.attention_mask] for inputs in prompts]
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    choices = search(family, model, component, batches, power=1, quantize=partial(quantize_rtn, bits=2, group_size=32))
    assert any(choice.exponent > 0 for choice in choices)
    for choice in choices:
        fold_scale(model, choice.group, choice.scale)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, weights[name])}
    assert changed
    if component != "language":
        after = [image.features for run in runs for image in run()]
    else:
        after = [decode(family, model, inputs)[inputs.attention_mask] for inputs in prompts]
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(one.abs().max()))


def test_a_group_that_nothing_absorbs_cannot_be_folded():
    with pytest.raises(ValueError, match="nothing can absorb"):
        fold_scale(nn.Linear(2, 2), ScaleGroup(None, ("1",), "1", "mlp"), torch.ones(2))


def test_a_fused_projection_absorbs_in_its_last_rows_and_merged_tokens_share_a_scale():
    torch.manual_seed(0)
    fused = nn.Sequential(nn.Linear(3, 6), nn.Identity(), nn.Linear(2, 2)).requires_grad_(False)
    before = [fused[0].weight.clone(), fused[0].bias.clone()]
    fold_scale(fused, ScaleGroup("0", ("2",), "2", "attention", offset=4), torch.tensor([2.0, 4.0]))
    ratio = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.5, 0.25])
    assert torch.equal(fused[0].weight, before[0] * ratio[:, None]) and torch.equal(fused[0].bias, before[1] * ratio)
    merged = nn.Sequential(nn.LayerNorm(2), nn.Flatten(0), nn.Linear(6, 1)).requires_grad_(False)
    inputs = torch.randn(3, 2)
    expected = merged(inputs)
    group = ScaleGroup("0", ("2",), "2", "mlp", repeats=3, norm=NormKind.WEIGHT)
    fold_scale(merged, group, torch.tensor([2.0, 0.3, 2.0, 0.3, 2.0, 0.3]))
    torch.testing.assert_close(merged(inputs), expected)
    with pytest.raises(ValueError, match="differs between its 3 repeats"):
        fold_scale(merged, group, torch.tensor([2.0, 0.3, 2.0, 0.3, 2.0, 0.4]))


def test_scale_by_hand():
    # magnitudes 4 and 1 at exponent 0.5: 2 and 1, over sqrt(2)
    torch.testing.assert_close(channel_scale(torch.tensor([4.0, 1.0]), 0.5), torch.tensor([2.0**0.5, 0.5**0.5]))
    assert torch.equal(channel_scale(torch.tensor([4.0, 0.0]), 0.0), torch.ones(2))
    # a dead channel is clamped at 1e-4
    torch.testing.assert_close(channel_scale(torch.tensor([1.0, 0.0]), 0.5), torch.tensor([1e2, 1e-2]))


def test_token_weights_by_hand():
    roles = torch.tensor([Role.PAD, Role.IMAGE, Role.QUESTION, Role.TEXT, Role.ANSWER], dtype=torch.int8)
    assert mbq.token_weights(roles, ratio=0.25).tolist() == [0, 0.25, 0, 0, 1]
    assert (
        mbq.token_weights(roles, ratio=1.0, other=1.0).tolist() == awq.token_weights(roles).tolist() == [0, 1, 1, 1, 1]
    )


def test_activations_that_are_not_finite_are_refused(calibrated):
    family, model, _, prompts = calibrated
    batches = batches_of(family, model, prompts, awq.token_weights)
    model.get_submodule(family.blocks(model, "language")[1]).input_layernorm.weight[0] = float("nan")
    with pytest.raises(QuantrustError, match=r"layers\.1\.self_attn\.q_proj.* hold NaN or infinite"):
        search(family, model, "language", batches, 2)


def plain_ratio(family, model, prompts, block, linear):
    """One sample at a time, gradients with respect to a zero added to the output."""
    image, answer = [], []
    for inputs in prompts:
        for row in range(len(inputs.roles)):
            kept = inputs.roles[row] != Role.PAD
            added = torch.zeros(int(kept.sum()), 64, requires_grad=True)
            hook = model.get_submodule(f"{block}.{linear}").register_forward_hook(lambda m, a, o, x=added: o + x)
            hidden = family.decode(
                model,
                inputs.inputs_embeds[row : row + 1, kept],
                torch.ones(1, int(kept.sum()), dtype=torch.bool),
                inputs.position_ids[..., row : row + 1, kept],
            )[0][0]
            hook.remove()
            roles, ids = inputs.roles[row, kept], inputs.token_ids[row, kept]
            losses = [
                -torch.log_softmax(family.logits(model, hidden[place - 1]), dim=-1)[ids[place]]
                for place in range(1, len(ids))
                if roles[place] == Role.ANSWER
            ]
            (sum(losses) / len(losses)).backward()
            magnitude = added.grad.abs().mean(dim=1)
            image.append(float(magnitude[roles == Role.IMAGE].mean()))
            answer.append(float(magnitude[roles == Role.ANSWER].mean()))
    return sum(image) / sum(answer)


def test_modality_ratios_match_one_sample_at_a_time(calibrated):
    family, model, _, prompts = calibrated
    ratios = mbq.modality_ratios(family, model, prompts)
    blocks = family.blocks(model, "language")
    assert [(ratio.block, ratio.kind) for ratio in ratios] == [(k, kind) for k in range(3) for kind in mbq.KINDS]
    for ratio in (ratios[0], ratios[3]):
        linear = {"attention": "self_attn.o_proj", "mlp": "mlp.down_proj"}[ratio.kind]
        assert ratio.ratio == pytest.approx(plain_ratio(family, model, prompts, blocks[ratio.block], linear), rel=1e-3)
        assert ratio.ratio == pytest.approx(ratio.image / ratio.answer)
    for kind in mbq.KINDS:
        values = [ratio.ratio for ratio in ratios if ratio.kind == kind]
        # after the last block no answer depends on an image token any more
        assert values[-1] == 0.0
        median = sorted(values)[1]
        assert [ratio.used for ratio in ratios if ratio.kind == kind] == [max(value, median) for value in values]


def test_ratios_do_not_depend_on_the_batching(calibrated):
    family, model, _, (inputs,) = calibrated
    split = [
        type(inputs)(
            inputs.inputs_embeds[rows],
            inputs.attention_mask[rows],
            inputs.position_ids[..., rows, :],
            inputs.token_ids[rows],
            inputs.roles[rows],
        )
        for rows in (slice(0, 2), slice(2, 5))
    ]
    together, apart = (mbq.modality_ratios(family, model, batches) for batches in ([inputs], split))
    assert [ratio.ratio for ratio in together] == pytest.approx([ratio.ratio for ratio in apart], rel=1e-4)


def test_a_model_that_yields_nan_gives_no_ratio(calibrated):
    family, model, _, prompts = calibrated
    model.get_submodule(family.decoder).norm.weight[0] = float("nan")
    with pytest.raises(QuantrustError, match="give no modality ratio"):
        mbq.modality_ratios(family, model, prompts)
