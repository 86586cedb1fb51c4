"""The Qwen2-VL family (arXiv 2409.12191)."""

from torch import nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLForConditionalGeneration, Qwen2VLRMSNorm

from quantrust.models.components import Blocks, Component, GroupRule, NormKind
from quantrust.models.families.shared.llama import llama_blocks
from quantrust.models.families.shared.qwen_vl import SEQUENTIAL_MERGER, QwenVL

VISION = Blocks(
    "model.visual.blocks",
    {"attn": "attention", "mlp": "mlp"},
    (
        GroupRule(".norm1", (".attn.qkv",), "attention", inspected=".attn"),
        GroupRule(".attn.qkv", (".attn.proj",), "attention", fused=True),
        GroupRule(".norm2", (".mlp.fc1",), "mlp", inspected=".mlp"),
        # GELU does not pass a scale on
        GroupRule(None, (".mlp.fc2",), "mlp"),
    ),
)


class Qwen2VL(QwenVL):
    """Adapter of `Qwen2VLForConditionalGeneration`."""

    name = "qwen2_vl"
    model_class = Qwen2VLForConditionalGeneration
    vision = Component(("model.visual",), (VISION,), heads="num_heads")
    connector = Component(("model.visual.merger",), (SEQUENTIAL_MERGER,))
    language = Component(("model.language_model",), (llama_blocks("model.language_model.layers"),))
    embedding = "model.language_model.embed_tokens"
    head = "lm_head"
    final_norm = "model.language_model.norm"
    norms = ((nn.LayerNorm, NormKind.WEIGHT), (Qwen2VLRMSNorm, NormKind.WEIGHT))
    processor_keys = ("min_pixels", "max_pixels")
    max_aspect_ratio = 200
    published_image_tokens = ("<|image_pad|>", "<|vision_start|>", "<|vision_end|>")


FAMILY = Qwen2VL()
