"""The Qwen2-VL family (arXiv 2409.12191)."""

from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor

from quantrust.errors import QuantrustError
from quantrust.models.decoder import decoder_scale_groups
from quantrust.models.family import EncodedImage, Family, Role, ScaleGroup, VisionInputs
from quantrust.models.processing import load_chat_template, load_image_processor, load_tokenizer

LARGEST_LEAST = 1 << 28
"""Pixels that the smallest picture may be scaled to: with more no memory holds it."""


class ImageOnlyQwen2VLProcessor(Qwen2VLProcessor):
    """Qwen2-VL's processor without its video processor, which can not be built without torchvision."""

    def __init__(
        self,
        image_processor: Qwen2VLImageProcessorPil,
        tokenizer: PreTrainedTokenizerFast,
        chat_template: str,
    ) -> None:
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template)

    @classmethod
    def get_attributes(cls) -> list[str]:
        """Return the parts that the processor is made of."""
        return ["image_processor", "tokenizer"]


class Qwen2VL(Family):
    """Adapter of `Qwen2VLForConditionalGeneration`."""

    name = "qwen2_vl"
    model_class = Qwen2VLForConditionalGeneration
    decoder = "model.language_model"
    embedding = "model.language_model.embed_tokens"
    tower = "model.visual"
    tower_blocks = "model.visual.blocks"
    connector = "model.visual.merger"
    connector_body = "model.visual.merger.mlp"
    answer_prefix = ""
    processor_keys = ("min_pixels", "max_pixels")
    max_aspect_ratio = 200

    def scale_groups(self, model: nn.Module, block_name: str) -> list[ScaleGroup]:
        """Return the groups of one vision or language block, or of the connector."""
        if block_name == self.connector_body:
            first, last = f"{block_name}.0", f"{block_name}.2"
            norm = f"{self.connector}.ln_q"
            # neighbouring patches are normed one by one and then read as one token
            merged = model.get_submodule(first).in_features // model.get_submodule(norm).weight.numel()
            return [
                ScaleGroup(norm, (first,), block_name, "mlp", repeats=merged),
                ScaleGroup(None, (last,), last, "mlp"),
            ]
        if block_name.startswith(self.tower_blocks):
            values = 2 * model.get_submodule(f"{block_name}.attn.proj").in_features
            return [
                ScaleGroup(f"{block_name}.norm1", (f"{block_name}.attn.qkv",), f"{block_name}.attn", "attention"),
                # queries, keys and values are one linear, of which the values come last
                ScaleGroup(
                    f"{block_name}.attn.qkv",
                    (f"{block_name}.attn.proj",),
                    f"{block_name}.attn.proj",
                    "attention",
                    offset=values,
                ),
                ScaleGroup(f"{block_name}.norm2", (f"{block_name}.mlp.fc1",), f"{block_name}.mlp", "mlp"),
                ScaleGroup(None, (f"{block_name}.mlp.fc2",), f"{block_name}.mlp.fc2", "mlp"),
            ]
        return decoder_scale_groups(model, block_name)

    def load_processor(self, folder: str) -> ImageOnlyQwen2VLProcessor:
        """Load image processor, tokenizer and chat template of a model folder."""
        image_processor = load_image_processor(Qwen2VLImageProcessorPil, folder)
        # the library's names of min_pixels and max_pixels
        least, most = (getattr(image_processor.size, name, None) for name in ("shortest_edge", "longest_edge"))
        if not all(type(pixels) in (int, float) and pixels >= 1 for pixels in (least, most)) or least > LARGEST_LEAST:
            raise QuantrustError(
                f"{folder}: the image processor scales pictures to min_pixels {least!r} at least and max_pixels "
                f"{most!r} at most; expected numbers from 1 on, and min_pixels of at most {LARGEST_LEAST:,}"
            )
        if least > most:
            raise QuantrustError(
                f"{folder}: the image processor scales pictures to min_pixels {least:,} at least and max_pixels "
                f"{most:,} at most; expected min_pixels not above max_pixels"
            )
        template = load_chat_template(folder)
        return ImageOnlyQwen2VLProcessor(image_processor, load_tokenizer(folder), template)

    def preprocess(self, processor: Any, images: list[Image.Image]) -> VisionInputs:
        """Turn RGB images into flat patches and their grids."""
        output = processor.image_processor(images, return_tensors="pt")
        placeholders = tuple(processor.replace_image_token(output, k) for k in range(len(images)))
        grids = tuple(tuple(int(v) for v in row) for row in output["image_grid_thw"])
        return VisionInputs(dict(output), placeholders, grids)

    def _position_ids(
        self, model: nn.Module, token_ids: torch.Tensor, roles: torch.Tensor, images: list[EncodedImage]
    ) -> torch.Tensor:
        positions, _ = model.model.get_rope_index(
            token_ids,
            (roles == Role.IMAGE).int(),
            image_grid_thw=torch.tensor([image.grid for image in images], device=token_ids.device),
            attention_mask=(roles != Role.PAD).int(),
        )
        return positions

    def end_token(self, processor: Any) -> str:
        """Return the token that ends the assistant's turn."""
        return "<|im_end|>"


FAMILY = Qwen2VL()
