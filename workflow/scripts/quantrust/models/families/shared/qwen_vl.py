"""What Qwen2-VL, Qwen2.5-VL and Qwen3-VL share: how pictures become patches, and tokens with rotary positions."""

from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor

from quantrust.errors import QuantrustError
from quantrust.models.components import Blocks, GroupRule
from quantrust.models.family import EncodedImage, Family, Role, VisionInputs
from quantrust.models.processing import load_chat_template, load_image_processor, load_tokenizer

LARGEST_LEAST = 12_845_056
"""Pixels that the smallest picture may be scaled to: the max_pixels that Qwen2-VL is published with."""

SEQUENTIAL_MERGER = Blocks(
    "model.visual.merger.mlp",
    {"0": "mlp", "2": "mlp"},
    (
        # neighbouring patches are normed one by one and then read as one token; what is inspected is the whole block
        GroupRule("model.visual.merger.ln_q", (".0",), "mlp", inspected="model.visual.merger.mlp", merged=True),
        GroupRule(None, (".2",), "mlp"),
    ),
    single=True,
)
"""The connector of Qwen2-VL and Qwen2.5-VL."""


class ImageOnlyQwen2VLProcessor(Qwen2VLProcessor):
    """Qwen2-VL's processor without its video processor, which cannot be built without torchvision.

    To pictures, the processors of Qwen2.5-VL and Qwen3-VL do the same.
    """

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


class QwenVL(Family):
    """The part of an adapter that is the same for all of them."""

    answer_prefix = ""

    def load_processor(self, folder: str) -> ImageOnlyQwen2VLProcessor:
        """Load image processor, tokenizer and chat template of a model folder."""
        image_processor = load_image_processor(Qwen2VLImageProcessorPil, folder)
        # the library's names, whatever the published file and a study call them
        least, most = (getattr(image_processor.size, name, None) for name in ("shortest_edge", "longest_edge"))
        low, high = self.processor_keys
        if not all(type(pixels) in (int, float) and pixels >= 1 for pixels in (least, most)) or least > LARGEST_LEAST:
            raise QuantrustError(
                f"{folder}: the image processor scales pictures to {low} {least!r} at least and {high} {most!r} at "
                f"most; expected numbers from 1 on, and {low} of at most {LARGEST_LEAST:,}"
            )
        if least > most:
            raise QuantrustError(
                f"{folder}: the image processor scales pictures to {low} {least:,} at least and {high} {most:,} at "
                f"most; expected {low} not above {high}"
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
        shown, real = (roles == Role.IMAGE).int(), (roles != Role.PAD).int()
        grids = torch.tensor([image.grid for image in images], device=token_ids.device)
        # Prompts of one layout have the same positions, which the library finds for one prompt after another.
        layouts, layout = torch.cat([shown, real, grids], dim=1).unique(dim=0, return_inverse=True)
        some = layout.new_empty(len(layouts)).scatter_(0, layout, torch.arange(len(layout), device=layout.device))
        positions, _ = model.model.get_rope_index(
            token_ids[some], shown[some], image_grid_thw=grids[some], attention_mask=real[some]
        )
        return positions[:, layout]

    def end_token(self, processor: Any) -> str:
        """Return the token that ends the assistant's turn."""
        return "<|im_end|>"
