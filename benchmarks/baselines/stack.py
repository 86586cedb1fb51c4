"""A language model of Qwen2-VL's shape with random weights, and calibration samples for it."""

import torch
from transformers import Qwen2VLConfig
from transformers.initialization import no_init_weights

from quantrust.models.family import LanguageInputs, Role
from quantrust.models.loading import load_family

FAMILY = load_family("qwen2_vl")
WIDTHS = {
    "7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4},
    "2b": {"hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2},
    "small": {"hidden_size": 256, "intermediate_size": 768, "num_attention_heads": 8, "num_key_value_heads": 2},
}
VOCABULARY = 512
# tokens of one sample: the chat's frame, an image, the question, a caption
FRAME_TOKENS, QUESTION_TOKENS = 20, 10
IMAGE_TOKENS = (144, 256)
ANSWER_TOKENS = (60, 160)
OUTLIER_SHARE = 0.01


def build_model(width, blocks):
    """Return a float32 model on the CPU whose norms and gated values have outlier channels, as real ones have.

    Its weights are numbers that bfloat16 holds, as those of published models are.
    """
    shape = WIDTHS[width]
    head = shape["hidden_size"] // shape["num_attention_heads"]
    sections = [head // 8, 3 * head // 16, 3 * head // 16]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    config = Qwen2VLConfig(
        text_config=shape
        | {"num_hidden_layers": blocks, "vocab_size": VOCABULARY, "rope_parameters": rope}
        | {"bos_token_id": None, "eos_token_id": None},
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": shape["hidden_size"], "num_heads": 2},
    )
    generator = torch.Generator().manual_seed(0)
    with no_init_weights():
        model = FAMILY.model_class(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
            elif name.endswith("norm.weight"):
                parameter.copy_(_with_outliers(parameter.normal_(std=0.4, generator=generator).exp_(), 8.0, generator))
            else:
                parameter.zero_()
            if name.endswith("up_proj.weight"):
                parameter.mul_(_with_outliers(torch.ones(len(parameter), 1), 4.0, generator))
            parameter.copy_(parameter.bfloat16())
    return model.requires_grad_(False)


def _with_outliers(values, factor, generator):
    """Multiply a random share of rows."""
    chosen = torch.rand(len(values), generator=generator) < OUTLIER_SHARE
    values[chosen] *= factor
    return values


def build_samples(model, width, tokens):
    """Return samples with at least so many tokens in all, as one batch that is padded on the left."""
    generator = torch.Generator().manual_seed(1)
    samples = []
    while sum(map(len, samples)) < tokens:
        image, answer = (
            int(torch.randint(low, high + 1, (), generator=generator)) for low, high in (IMAGE_TOKENS, ANSWER_TOKENS)
        )
        samples.append(
            [Role.TEXT] * FRAME_TOKENS
            + [Role.IMAGE] * image
            + [Role.QUESTION] * QUESTION_TOKENS
            + [Role.ANSWER] * answer
        )
    longest = max(map(len, samples))
    roles = torch.tensor([[int(Role.PAD)] * (longest - len(row)) + list(map(int, row)) for row in samples])
    roles = roles.to(torch.int8)
    token_ids = torch.randint(VOCABULARY, roles.shape, generator=generator)
    states = torch.randn(*roles.shape, WIDTHS[width]["hidden_size"], generator=generator)
    # tokens differ in size, some by much
    states *= torch.randn(*roles.shape, 1, generator=generator).exp()
    words = model.get_submodule(FAMILY.embedding)(token_ids)
    embeds = torch.where((roles == Role.IMAGE)[..., None], states, words)
    positions = ((roles != Role.PAD).cumsum(dim=1) - 1).clamp(min=0)
    return LanguageInputs(embeds, roles != Role.PAD, positions.expand(3, *roles.shape), token_ids, roles)
