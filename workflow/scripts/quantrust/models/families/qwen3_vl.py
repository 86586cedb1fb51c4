"""The Qwen3-VL family (arXiv 2511.21631), whose decoder also reads features of blocks within the vision tower."""

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLForConditionalGeneration, Qwen3VLTextRMSNorm

from quantrust.models.components import Blocks, Component, GroupRule, NormKind
from quantrust.models.families.shared.llama import llama_blocks
from quantrust.models.families.shared.qwen_vl import QwenVL
from quantrust.models.family import EncodedImage, LanguageInputs, Role, VisionInputs

VISION = Blocks(
    "model.visual.blocks",
    {"attn": "attention", "mlp": "mlp"},
    (
        GroupRule(".norm1", (".attn.qkv",), "attention", inspected=".attn"),
        GroupRule(".attn.qkv", (".attn.proj",), "attention", fused=True),
        GroupRule(".norm2", (".mlp.linear_fc1",), "mlp", inspected=".mlp"),
        # GELU does not pass a scale on
        GroupRule(None, (".mlp.linear_fc2",), "mlp"),
    ),
)
LAYER_TYPES = {"linear_fc1": "mlp", "linear_fc2": "mlp"}
MERGERS = Blocks(
    "model.visual.deepstack_merger_list",
    LAYER_TYPES,
    # these norm what was merged, each channel of a token by its own weight
    (GroupRule(".norm", (".linear_fc1",), "mlp"), GroupRule(None, (".linear_fc2",), "mlp")),
)
LAST_MERGER = Blocks(
    "model.visual.merger",
    LAYER_TYPES,
    # this one norms patches one by one and then reads neighbours as one token
    (GroupRule(".norm", (".linear_fc1",), "mlp", merged=True), GroupRule(None, (".linear_fc2",), "mlp")),
    single=True,
)


class Qwen3VL(QwenVL):
    """Adapter of `Qwen3VLForConditionalGeneration`."""

    name = "qwen3_vl"
    model_class = Qwen3VLForConditionalGeneration
    vision = Component(("model.visual",), (VISION,), heads="num_heads")
    connector = Component((LAST_MERGER.path, MERGERS.path), (MERGERS, LAST_MERGER))
    # queries and keys are normed head by head, which no scale passes through; values are not
    language = Component(("model.language_model",), (llama_blocks("model.language_model.layers"),))
    embedding = "model.language_model.embed_tokens"
    head = "lm_head"
    final_norm = "model.language_model.norm"
    norms = ((nn.LayerNorm, NormKind.WEIGHT), (Qwen3VLTextRMSNorm, NormKind.WEIGHT))
    processor_keys = ("size.shortest_edge", "size.longest_edge")
    max_aspect_ratio = 200
    # the mergers of the tower's intermediate features
    blocks_in_connector = True
    published_image_tokens = ("<|image_pad|>", "<|vision_start|>", "<|vision_end|>")

    def deepstack_levels(self, model: nn.Module) -> int:
        """Return how many blocks within the vision tower the decoder reads features of."""
        return len(model.get_submodule(MERGERS.path))

    def stages(self, model: nn.Module, component: str) -> list[list[str]]:
        """Return a component's blocks in stages: the mergers each read a block of the vision tower."""
        blocks = self.blocks(model, component)
        if component == "connector":
            return [[block] for block in blocks]
        if component != "vision":
            return [blocks]
        read = {index + 1 for index in model.get_submodule(self.tower).deepstack_visual_indexes}
        ends = sorted({0, *read, len(blocks)})
        return [blocks[start:end] for start, end in pairwise(ends)]

    def encode_images(self, model: nn.Module, inputs: VisionInputs) -> list[EncodedImage]:
        """Run vision tower and mergers over preprocessed images."""
        device = next(model.parameters()).device
        output = model.get_image_features(**{name: value.to(device) for name, value in inputs.tensors.items()})
        # by image instead of by level
        levels = (
            zip(*output.deepstack_features, strict=True) if output.deepstack_features else ((),) * len(inputs.grids)
        )
        parts = zip(output.pooler_output, inputs.placeholders, inputs.grids, levels, strict=True)
        return [EncodedImage(*part) for part in parts]

    def read_prompts(
        self, model: nn.Module, inputs: LanguageInputs, cache: Any | None = None
    ) -> tuple[torch.Tensor, Any]:
        """Run the decoder over whole prompts, with the features that its first blocks read."""
        output = model.get_submodule(self.decoder)(
            inputs_embeds=inputs.inputs_embeds,
            attention_mask=inputs.attention_mask,
            position_ids=inputs.position_ids,
            past_key_values=cache,
            use_cache=cache is not None,
            visual_pos_masks=inputs.roles == Role.IMAGE,
            deepstack_visual_embeds=list(inputs.deepstack),
        )
        return output.last_hidden_state, output.past_key_values


FAMILY = Qwen3VL()
