"""The InternVL family (InternVL3, arXiv 2504.10479), in the layout of the model library."""

from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedConfig, PreTrainedTokenizerFast
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.internvl.modeling_internvl import InternVLForConditionalGeneration, InternVLVisionRMSNorm
from transformers.models.internvl.processing_internvl import InternVLProcessor
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from quantrust.errors import QuantrustError
from quantrust.models.components import Blocks, Component, GroupRule, NormKind
from quantrust.models.families.shared.llama import llama_blocks
from quantrust.models.family import Family, VisionInputs
from quantrust.models.model_config import read_model_config
from quantrust.models.named_errors import blaming
from quantrust.models.processing import load_chat_template, load_image_processor, load_tokenizer

DECODERS = ("qwen2", "qwen3")
"""The `model_type` of the decoders that this adapter knows: of InternVL3, and of InternVL3.5."""

MOST_TILES = 64
"""That a picture may be cut into; 12 in the published models, and 40 at most in their papers."""

VISION = Blocks(
    "model.vision_tower.encoder.layer",
    {"attention": "attention", "mlp": "mlp"},
    (
        GroupRule(
            ".layernorm_before",
            (".attention.q_proj", ".attention.k_proj", ".attention.v_proj"),
            "attention",
            inspected=".attention",
        ),
        GroupRule(".attention.v_proj", (".attention.projection_layer",), "attention"),
        GroupRule(".layernorm_after", (".mlp.fc1",), "mlp", inspected=".mlp"),
        # GELU does not pass a scale on
        GroupRule(None, (".mlp.fc2",), "mlp"),
    ),
)
CONNECTOR = Blocks(
    "model.multi_modal_projector",
    {"linear_1": "mlp", "linear_2": "mlp"},
    # the norm comes behind the pixel shuffle, so that each channel of a token has its own weight
    (GroupRule(".layer_norm", (".linear_1",), "mlp"), GroupRule(None, (".linear_2",), "mlp")),
    single=True,
)


class ImageOnlyInternVLProcessor(InternVLProcessor):
    """InternVL's processor without its video processor, which cannot be built without torchvision."""

    def __init__(
        self,
        image_processor: GotOcr2ImageProcessorPil,
        tokenizer: PreTrainedTokenizerFast,
        image_seq_length: int,
        chat_template: str,
    ) -> None:
        super().__init__(image_processor, tokenizer, None, image_seq_length, chat_template)

    @classmethod
    def get_attributes(cls) -> list[str]:
        """Return the parts that the processor is made of."""
        return ["image_processor", "tokenizer"]


class InternVL(Family):
    """Adapter of `InternVLForConditionalGeneration` with a decoder of Qwen2.5 or Qwen3."""

    name = "internvl"
    model_class = InternVLForConditionalGeneration
    vision = Component(("model.vision_tower",), (VISION,))
    connector = Component(("model.multi_modal_projector",), (CONNECTOR,))
    language = Component(("model.language_model",), (llama_blocks("model.language_model.layers"),))
    embedding = "model.language_model.embed_tokens"
    head = "lm_head"
    final_norm = "model.language_model.norm"
    norms = (
        (nn.LayerNorm, NormKind.WEIGHT),
        (InternVLVisionRMSNorm, NormKind.WEIGHT),
        (Qwen2RMSNorm, NormKind.WEIGHT),
        (Qwen3RMSNorm, NormKind.WEIGHT),
    )
    answer_prefix = ""
    processor_keys = ("min_patches", "max_patches")
    published_image_tokens = ("<IMG_CONTEXT>", "<img>", "</img>")

    def running_part(self, config: PreTrainedConfig) -> tuple[dict[str, Any], list[str]]:
        """Return that all blocks run; models that the adapter does not cover are refused."""
        known = " and ".join(DECODERS)
        if (found := config.text_config.model_type) not in DECODERS:
            raise QuantrustError(
                f"text_config has model_type {found!r}, but the adapter of internvl knows {known} alone; write an "
                "adapter of its own for this model"
            )
        if config.vision_feature_layer != -1:
            raise QuantrustError(
                f"vision_feature_layer is {config.vision_feature_layer!r}, but the adapter of internvl reads the "
                "output of the last block (-1); write an adapter of its own for this model"
            )
        return {}, []

    def load_processor(self, folder: str) -> ImageOnlyInternVLProcessor:
        """Load image processor, tokenizer and chat template of a model folder."""
        config = read_model_config(folder, self.model_class.config_class)
        image_processor = load_image_processor(GotOcr2ImageProcessorPil, folder)
        _check_tiles(folder, image_processor, tuple(config.vision_config.image_size))
        rows, columns = (
            int(side // patch * config.downsample_ratio)
            for side, patch in zip(config.vision_config.image_size, config.vision_config.patch_size, strict=True)
        )
        tokenizer, template = load_tokenizer(folder), load_chat_template(folder)
        fault = f"{folder}: tokenizer_config.json does not name the tokens around an image (extra_special_tokens)"
        with blaming(fault, "get it again, in the layout of the model library"):
            return ImageOnlyInternVLProcessor(image_processor, tokenizer, rows * columns, template)

    def preprocess(self, processor: Any, images: list[Image.Image]) -> VisionInputs:
        """Turn RGB images into tiles, and a small one of the whole if there are several."""
        # as the library's processor does, whatever the file says
        output = processor.image_processor(images, crop_to_patches=True, return_tensors="pt")
        placeholders = tuple(processor.replace_image_token(output, k) for k in range(len(images)))
        tensors = {name: output[name] for name in ("pixel_values", "num_patches")}
        return VisionInputs(tensors, placeholders, (None,) * len(images))

    def prompt_tokens(self, processor: Any) -> tuple[str, ...]:
        """Return the tokens that prompts are put together with, those around an image included."""
        return (*super().prompt_tokens(processor), processor.start_image_token, processor.end_image_token)

    def end_token(self, processor: Any) -> str:
        """Return the token that ends the assistant's turn."""
        return "<|im_end|>"

    def _image_features(self, model: nn.Module, tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        features = model.get_image_features(tensors["pixel_values"]).pooler_output
        return [tiles.flatten(0, 1) for tiles in features.split(tensors["num_patches"].tolist())]


def _check_tiles(folder: str, image_processor: Any, square: tuple[int, ...]) -> None:
    """Raise when pictures are cut into tiles of another size than the tower's, or into too many."""
    tile = tuple(getattr(image_processor.size, side, None) for side in ("height", "width"))
    if tile != square:
        raise QuantrustError(
            f"{folder}: the image processor makes tiles of {tile[0]!r} x {tile[1]!r} pixels (size), but the vision "
            f"tower reads {square[0]} x {square[1]} (image_size in config.json); both must be of one model: get the "
            "folder again"
        )
    least, most = image_processor.min_patches, image_processor.max_patches
    if not all(type(tiles) is int for tiles in (least, most)) or not 1 <= least <= most <= MOST_TILES:
        raise QuantrustError(
            f"{folder}: the image processor cuts pictures into min_patches {least!r} to max_patches {most!r} tiles; "
            f"expected whole numbers from 1 to {MOST_TILES}, the smaller first"
        )


FAMILY = InternVL()
