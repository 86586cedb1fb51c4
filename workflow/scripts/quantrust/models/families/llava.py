"""The LLaVA 1.5 family (arXiv 2310.03744)."""

from typing import Any

from PIL import Image
from torch import nn
from transformers import PreTrainedConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.llava.modeling_llava import LlavaForConditionalGeneration
from transformers.models.llava.processing_llava import LlavaProcessor

from quantrust.errors import QuantrustError
from quantrust.models.components import Component, NormKind
from quantrust.models.families.shared.clip import clip_blocks
from quantrust.models.families.shared.feature_layer import check_parts, running_blocks
from quantrust.models.families.shared.llama import llama_blocks
from quantrust.models.families.shared.projector import projector
from quantrust.models.family import Family, VisionInputs
from quantrust.models.model_config import read_model_config
from quantrust.models.processing import load_chat_template, load_image_processor, load_tokenizer

BEGIN, END = "<s>", "</s>"
"""Of a text, as Llama 2 has them. The chat template names neither."""

TURN = "ASSISTANT:"
"""What an answer follows."""

PARTS = {"vision_config": "clip_vision_model", "text_config": "llama"}
"""The `model_type` of the parts that this adapter knows, by their key in the config."""

LARGEST_SCALE = 2
"""Sides of pictures before they are cropped, at most, over that of the tower's square. The published model has 1."""

VISION_BLOCKS = "model.vision_tower.encoder.layers"


class Llava(Family):
    """Adapter of `LlavaForConditionalGeneration` with a CLIP tower and a Llama decoder."""

    name = "llava"
    model_class = LlavaForConditionalGeneration
    vision = Component(("model.vision_tower",), (clip_blocks(VISION_BLOCKS),))
    connector = Component(("model.multi_modal_projector",), (projector("model.multi_modal_projector"),))
    language = Component(("model.language_model",), (llama_blocks("model.language_model.layers"),))
    embedding = "model.language_model.embed_tokens"
    head = "lm_head"
    final_norm = "model.language_model.norm"
    norms = ((nn.LayerNorm, NormKind.WEIGHT), (LlamaRMSNorm, NormKind.WEIGHT))
    answer_prefix = " "
    # pictures are scaled by their shorter side, so that a thin one would become gigabytes before it is cropped
    max_aspect_ratio = 200
    published_image_tokens = ("<image>",)

    def running_part(self, config: PreTrainedConfig) -> tuple[dict[str, Any], list[str]]:
        """Cut the vision tower after the block whose output the connector reads: the published one has one more."""
        check_parts(config, self.name, PARTS, "LLaVA 1.5")
        return running_blocks(config, self.name, VISION_BLOCKS)

    def load_processor(self, folder: str) -> LlavaProcessor:
        """Load image processor, tokenizer and chat template of a model folder."""
        config = read_model_config(folder, self.model_class.config_class)
        image_processor = load_image_processor(CLIPImageProcessorPil, folder)
        _check_sizes(folder, image_processor, config.vision_config.image_size)
        return LlavaProcessor(
            image_processor,
            load_tokenizer(folder),
            patch_size=config.vision_config.patch_size,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            chat_template=load_chat_template(folder),
            # the class token, which the strategy "default" drops
            num_additional_image_tokens=1,
        )

    def preprocess(self, processor: Any, images: list[Image.Image]) -> VisionInputs:
        """Turn RGB images into pixels; one that is too thin to be scaled is a `ValueError`, as in the library."""
        for image in images:
            if max(image.size) > self.max_aspect_ratio * min(image.size):
                raise ValueError(f"its longer side is more than {self.max_aspect_ratio} times its shorter one")
        output = processor.image_processor(images, return_tensors="pt")
        placeholders = tuple(processor.replace_image_token(output, k) for k in range(len(images)))
        return VisionInputs({"pixel_values": output["pixel_values"]}, placeholders, (None,) * len(images))

    def prompt_frame(self, processor: Any, template: str) -> tuple[str, str]:
        """Return what comes before and after the question; the token that begins a text comes first."""
        before, after = super().prompt_frame(processor, template)
        return before if before.startswith(BEGIN) else BEGIN + before, after

    def answer_tokens(self, processor: Any, answer: str) -> list[int]:
        """Return the tokens that an answer adds to the assistant's turn.

        The published tokenizer puts a space before every text, so that an answer by itself would get one too many.
        """
        tokenizer = processor.tokenizer
        texts = [TURN, TURN + self.answer_prefix + answer + END]
        turn, answered = tokenizer(texts, add_special_tokens=False)["input_ids"]
        return answered[len(turn) :]

    def prompt_tokens(self, processor: Any) -> tuple[str, ...]:
        """Return the tokens that prompts and answers are put together with."""
        return (*super().prompt_tokens(processor), BEGIN)

    def end_token(self, processor: Any) -> str:
        """Return the token that ends an answer."""
        return END


def _check_sizes(folder: str, image_processor: Any, square: int) -> None:
    """Raise when pictures are scaled or cropped to sizes that have nothing to do with the tower's."""
    advice = "both must be of one model: get the folder again"
    crop = {side: getattr(image_processor.crop_size, side, None) for side in ("height", "width")}
    if image_processor.do_center_crop and {*crop.values()} != {square}:
        raise QuantrustError(
            f"{folder}: the image processor crops pictures to {crop['height']!r} x {crop['width']!r} pixels "
            f"(crop_size), but the vision tower reads {square} a side (image_size in config.json); {advice}"
        )
    largest = max((side for side in vars(image_processor.size).values() if side is not None), default=0)
    if image_processor.do_resize and largest > LARGEST_SCALE * square:
        raise QuantrustError(
            f"{folder}: the image processor scales pictures to {largest:,} pixels a side (size), but the vision tower "
            f"reads {square} (image_size in config.json); expected at most {LARGEST_SCALE * square:,}: {advice}"
        )


FAMILY = Llava()
