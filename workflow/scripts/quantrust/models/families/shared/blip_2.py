"""What the models of BLIP-2 share: the EVA vision tower, the Q-Former, and how pictures are prepared."""

from typing import Any

from PIL import Image
from transformers.image_processing_base import ImageProcessingMixin
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from quantrust.models.components import Blocks, GroupRule
from quantrust.models.families.shared.square import check_square
from quantrust.models.processing import load_image_processor

FLOAT32 = ("query_tokens", "qformer")
"""What the library keeps in float32."""

VISION = Blocks(
    "vision_model.encoder.layers",
    {"self_attn": "attention", "mlp": "mlp"},
    (
        GroupRule(".layer_norm1", (".self_attn.qkv",), "attention", inspected=".self_attn"),
        GroupRule(".self_attn.qkv", (".self_attn.projection",), "attention", fused=True),
        GroupRule(".layer_norm2", (".mlp.fc1",), "mlp", inspected=".mlp"),
        # GELU does not pass a scale on
        GroupRule(None, (".mlp.fc2",), "mlp"),
    ),
)

LAYER_TYPES = {
    "attention": "self_attention",
    "crossattention": "cross_attention",
    **dict.fromkeys(("intermediate_query", "output_query", "intermediate", "output"), "mlp"),
}
QFORMER = "qformer.encoder.layer"


def qformer_blocks() -> Blocks:
    """Return the description of the Q-Former's blocks, some of which have cross-attention, and some a way for text.

    Each norm comes behind a sum, and the next sum reads it as well as the linears. Keys and values of all
    cross-attentions read the tower's last norm. So the values alone absorb a scale.
    """
    own, cross = ".attention.attention", ".crossattention.attention"
    return Blocks(
        QFORMER,
        LAYER_TYPES,
        (
            GroupRule(None, (f"{own}.query", f"{own}.key", f"{own}.value"), "attention", inspected=own),
            GroupRule(f"{own}.value", (".attention.output.dense",), "attention"),
            GroupRule(None, (f"{cross}.query",), "attention", optional=True),
            GroupRule(None, (f"{cross}.key", f"{cross}.value"), "attention", optional=True),
            GroupRule(f"{cross}.value", (".crossattention.output.dense",), "attention", optional=True),
            GroupRule(None, (".intermediate.dense",), "mlp", optional=True),
            GroupRule(None, (".output.dense",), "mlp", optional=True),
            GroupRule(None, (".intermediate_query.dense",), "mlp"),
            GroupRule(None, (".output_query.dense",), "mlp"),
        ),
    )


def load_pictures(folder: str, side: int) -> ImageProcessingMixin:
    """Load the image processor of a model folder, whose vision tower reads squares of `side` pixels."""
    image_processor = load_image_processor(BlipImageProcessorPil, folder)
    check_square(folder, image_processor, side)
    return image_processor


def squares(processor: Any, images: list[Image.Image]) -> Any:
    """Return the pixels of RGB images, shape (images, 3, side, side), float32."""
    return processor.image_processor(images, return_tensors="pt")["pixel_values"]
