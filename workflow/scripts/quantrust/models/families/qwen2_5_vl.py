"""The Qwen2.5-VL family (arXiv 2502.13923)."""

from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLRMSNorm

from quantrust.models.components import Blocks, Component, GroupRule, NormKind
from quantrust.models.families.shared.llama import llama_blocks
from quantrust.models.families.shared.qwen_vl import SEQUENTIAL_MERGER, QwenVL

VISION = Blocks(
    "model.visual.blocks",
    {"attn": "attention", "mlp": "mlp"},
    (
        GroupRule(".norm1", (".attn.qkv",), "attention", inspected=".attn"),
        GroupRule(".attn.qkv", (".attn.proj",), "attention", fused=True),
        GroupRule(".norm2", (".mlp.gate_proj", ".mlp.up_proj"), "mlp", inspected=".mlp"),
        GroupRule(".mlp.up_proj", (".mlp.down_proj",), "mlp"),
    ),
)


class Qwen25VL(QwenVL):
    """Adapter of `Qwen2_5_VLForConditionalGeneration`."""

    name = "qwen2_5_vl"
    model_class = Qwen2_5_VLForConditionalGeneration
    vision = Component(("model.visual",), (VISION,), heads="num_heads")
    connector = Component(("model.visual.merger",), (SEQUENTIAL_MERGER,))
    language = Component(("model.language_model",), (llama_blocks("model.language_model.layers"),))
    embedding = "model.language_model.embed_tokens"
    head = "lm_head"
    final_norm = "model.language_model.norm"
    norms = ((Qwen2_5_VLRMSNorm, NormKind.WEIGHT),)
    processor_keys = ("min_pixels", "max_pixels")
    max_aspect_ratio = 200
    published_image_tokens = ("<|image_pad|>", "<|vision_start|>", "<|vision_end|>")


FAMILY = Qwen25VL()
