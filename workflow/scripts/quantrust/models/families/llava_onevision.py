"""The LLaVA-OneVision family (arXiv 2408.03326)."""

import re
from typing import Any

from PIL import Image
from torch import nn
from transformers import PreTrainedConfig, PreTrainedTokenizerFast
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionForConditionalGeneration
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from quantrust.errors import QuantrustError
from quantrust.models.components import Component, NormKind
from quantrust.models.families.shared.clip import clip_blocks
from quantrust.models.families.shared.feature_layer import check_parts, running_blocks
from quantrust.models.families.shared.llama import llama_blocks
from quantrust.models.families.shared.projector import projector
from quantrust.models.families.shared.square import check_square
from quantrust.models.family import Family, VisionInputs
from quantrust.models.model_config import read_model_config
from quantrust.models.processing import load_chat_template, load_image_processor, load_tokenizer

PARTS = {"vision_config": "siglip_vision_model", "text_config": "qwen2"}
"""The `model_type` of the parts that this adapter knows, by their key in the config."""

VISION_BLOCKS = "model.vision_tower.encoder.layers"
MOST_TILES = 100
"""Of a picture, beside the whole of it. The published models have 36 at most."""


class ImageOnlyLlavaOnevisionProcessor(LlavaOnevisionProcessor):
    """LLaVA-OneVision's processor without its video processor, which cannot be built without torchvision."""

    def __init__(
        self, image_processor: LlavaOnevisionImageProcessorPil, tokenizer: PreTrainedTokenizerFast, **settings: Any
    ) -> None:
        super().__init__(image_processor, tokenizer, None, **settings)

    @classmethod
    def get_attributes(cls) -> list[str]:
        """Return the parts that the processor is made of."""
        return ["image_processor", "tokenizer"]


class LlavaOnevision(Family):
    """Adapter of `LlavaOnevisionForConditionalGeneration` with a SigLIP tower and a Qwen2 decoder."""

    name = "llava_onevision"
    model_class = LlavaOnevisionForConditionalGeneration
    vision = Component(("model.vision_tower",), (clip_blocks(VISION_BLOCKS),))
    # the connector reads states that the tower's last norm has not seen, and puts a feature of its own after each row
    connector = Component(
        ("model.multi_modal_projector", "model.image_newline"), (projector("model.multi_modal_projector"),)
    )
    language = Component(("model.language_model",), (llama_blocks("model.language_model.layers"),))
    embedding = "model.language_model.embed_tokens"
    head = "lm_head"
    final_norm = "model.language_model.norm"
    norms = ((nn.LayerNorm, NormKind.WEIGHT), (Qwen2RMSNorm, NormKind.WEIGHT))
    answer_prefix = ""
    published_image_tokens = ("<image>",)

    def running_part(self, config: PreTrainedConfig) -> tuple[dict[str, Any], list[str]]:
        """Cut the vision tower after the block whose output the connector reads: the published one ends there."""
        check_parts(config, self.name, PARTS, "LLaVA-OneVision")
        if config.vision_feature_select_strategy != "full":
            raise QuantrustError(
                f"vision_feature_select_strategy is {config.vision_feature_select_strategy!r}, but the tower has no "
                "class token that could be left out; expected 'full': get config.json again"
            )
        if re.fullmatch(r"anyres_max_[1-9]\d*", str(config.vision_aspect_ratio)) is None:
            raise QuantrustError(
                f"vision_aspect_ratio is {config.vision_aspect_ratio!r}; expected anyres_max_ and a number, as the "
                "library reads it: get config.json again"
            )
        return running_blocks(config, self.name, VISION_BLOCKS)

    def load_processor(self, folder: str) -> ImageOnlyLlavaOnevisionProcessor:
        """Load image processor, tokenizer and chat template of a model folder."""
        config = read_model_config(folder, self.model_class.config_class)
        image_processor = load_image_processor(LlavaOnevisionImageProcessorPil, folder)
        side = config.vision_config.image_size
        check_square(folder, image_processor, side)
        _check_tiles(folder, image_processor, config.image_grid_pinpoints, side)
        return ImageOnlyLlavaOnevisionProcessor(
            image_processor,
            load_tokenizer(folder),
            num_image_tokens=(side // config.vision_config.patch_size) ** 2,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            vision_aspect_ratio=config.vision_aspect_ratio,
            chat_template=load_chat_template(folder),
        )

    def preprocess(self, processor: Any, images: list[Image.Image]) -> VisionInputs:
        """Turn RGB images into tiles, the whole image first, and their sizes."""
        output = processor.image_processor(images, return_tensors="pt")
        placeholders = tuple(processor.replace_image_token(output, k) for k in range(len(images)))
        tensors = {name: output[name] for name in ("pixel_values", "image_sizes")}
        return VisionInputs(tensors, placeholders, (None,) * len(images))

    def end_token(self, processor: Any) -> str:
        """Return the token that ends the assistant's turn."""
        return "<|im_end|>"


def _check_tiles(folder: str, image_processor: Any, grids: Any, side: int) -> None:
    """Raise when pictures are cut into other tiles than the model puts together again."""
    if not image_processor.do_pad:
        raise QuantrustError(f"{folder}: the image processor pads no batches (do_pad); set it to true")
    if list(map(list, image_processor.image_grid_pinpoints)) != list(map(list, grids)):
        raise QuantrustError(
            f"{folder}: image_grid_pinpoints of the image processor and of config.json differ; both must be of one "
            "model: get the folder again"
        )
    for height, width in grids:
        if height % side or width % side or not 1 <= height * width // side**2 <= MOST_TILES:
            raise QuantrustError(
                f"{folder}: image_grid_pinpoints holds {height} x {width} pixels; expected 1 to {MOST_TILES} squares "
                f"of {side} pixels, which the vision tower reads: get the folder again"
            )


FAMILY = LlavaOnevision()
