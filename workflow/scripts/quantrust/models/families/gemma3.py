"""The Gemma 3 family (arXiv 2503.19786)."""

from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedConfig
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.gemma3.modeling_gemma3 import (
    Gemma3ForConditionalGeneration,
    Gemma3RMSNorm,
    create_masks_for_vision_model,
    get_block_sequence_ids_for_mask,
)
from transformers.models.gemma3.processing_gemma3 import Gemma3Processor

from quantrust.errors import QuantrustError
from quantrust.models.components import Component, NormKind
from quantrust.models.families.shared.clip import clip_blocks
from quantrust.models.families.shared.feature_layer import check_parts
from quantrust.models.families.shared.gemma import gemma3_blocks
from quantrust.models.families.shared.square import check_square
from quantrust.models.family import Family, LanguageInputs, Role, VisionInputs
from quantrust.models.model_config import read_model_config
from quantrust.models.processing import load_chat_template, load_image_processor, load_tokenizer

PARTS = {"vision_config": "siglip_vision_model", "text_config": "gemma3_text"}
"""The `model_type` of the parts that this adapter knows, by their key in the config."""

NAMED_TOKENS = ("boi_token", "image_token", "eoi_token")
"""What the tokenizer calls the tokens before, of and after the features of an image."""


class Gemma3(Family):
    """Adapter of `Gemma3ForConditionalGeneration`.

    The tokens of an image see each other, within the sliding window too. The connector multiplies by a parameter that
    is no layer, so that no scheme quantizes it.
    """

    name = "gemma3"
    model_class = Gemma3ForConditionalGeneration
    vision = Component(("model.vision_tower",), (clip_blocks("model.vision_tower.encoder.layers"),))
    connector = Component(("model.multi_modal_projector",))
    language = Component(("model.language_model",), (gemma3_blocks("model.language_model.layers"),))
    embedding = "model.language_model.embed_tokens"
    embedding_factor = "embed_scale"
    head = "lm_head"
    final_norm = "model.language_model.norm"
    norms = ((nn.LayerNorm, NormKind.WEIGHT), (Gemma3RMSNorm, NormKind.ONE_PLUS_WEIGHT))
    attentions = ("eager", "sdpa")
    answer_prefix = ""
    published_image_tokens = ("<image_soft_token>", "<start_of_image>", "<end_of_image>")
    processor_keys = (
        "do_pan_and_scan",
        "pan_and_scan_min_crop_size",
        "pan_and_scan_max_num_crops",
        "pan_and_scan_min_ratio_to_activate",
    )

    def running_part(self, config: PreTrainedConfig) -> tuple[dict[str, Any], list[str]]:
        """Return that all blocks run."""
        check_parts(config, self.name, PARTS, "Gemma 3")
        return {}, []

    def load_processor(self, folder: str) -> Gemma3Processor:
        """Load image processor, tokenizer and chat template of a model folder."""
        config = read_model_config(folder, self.model_class.config_class)
        image_processor = load_image_processor(Gemma3ImageProcessorPil, folder)
        check_square(folder, image_processor, config.vision_config.image_size)
        _complete(folder, image_processor)
        tokenizer = load_tokenizer(folder)
        if lacking := [name for name in NAMED_TOKENS if not isinstance(getattr(tokenizer, name, None), str)]:
            raise QuantrustError(
                f"{folder}: tokenizer_config.json does not say which token is {', '.join(lacking)}; expected all of "
                f"{', '.join(NAMED_TOKENS)}: get the file again"
            )
        return Gemma3Processor(
            image_processor,
            tokenizer,
            chat_template=load_chat_template(folder),
            image_seq_length=config.mm_tokens_per_image,
        )

    def preprocess(self, processor: Any, images: list[Image.Image]) -> VisionInputs:
        """Turn RGB images into squares, each image before its crops, and the number of crops of each."""
        output = processor.image_processor(images, return_tensors="pt")
        placeholders = tuple(processor.replace_image_token(output, k) for k in range(len(images)))
        tensors = {name: output[name] for name in ("pixel_values", "num_crops")}
        return VisionInputs(tensors, placeholders, (None,) * len(images))

    def _image_features(self, model: nn.Module, tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        features = model.get_image_features(tensors["pixel_values"]).pooler_output
        squares = (tensors["num_crops"] + 1).tolist()
        return [image.flatten(0, 1) for image in features.split(squares)]

    def read_prompts(
        self, model: nn.Module, inputs: LanguageInputs, cache: Any | None = None
    ) -> tuple[torch.Tensor, Any]:
        """Run the decoder over whole prompts, in which the tokens of an image see each other."""
        masks = create_masks_for_vision_model(
            config=model.get_submodule(self.decoder).config,
            inputs_embeds=inputs.inputs_embeds,
            attention_mask=inputs.attention_mask,
            past_key_values=cache,
            position_ids=inputs.position_ids,
            block_sequence_ids=get_block_sequence_ids_for_mask((inputs.roles == Role.IMAGE).long()),
        )
        return self.decode(model, inputs.inputs_embeds, masks, inputs.position_ids, cache)

    def image_token(self, processor: Any) -> str:
        """Return the token that stands for one row of image features."""
        return processor.tokenizer.image_token

    def image_mark(self, processor: Any) -> str:
        """Return what the chat template shows in the place of an image: the token before its features."""
        return processor.boi_token

    def prompt_tokens(self, processor: Any) -> tuple[str, ...]:
        """Return the tokens that prompts are put together with, those around an image included."""
        return (*super().prompt_tokens(processor), processor.boi_token, processor.tokenizer.eoi_token)

    def end_token(self, processor: Any) -> str:
        """Return the token that ends the model's turn."""
        return "<end_of_turn>"


def _complete(folder: str, image_processor: Any) -> None:
    """Give an image processor the settings of crops that its file leaves open, as the library's processor does."""
    for name, value in Gemma3Processor.images_kwargs.items():
        if getattr(image_processor, name, None) is None:
            setattr(image_processor, name, value)
    for name in ("pan_and_scan_min_crop_size", "pan_and_scan_max_num_crops", "pan_and_scan_min_ratio_to_activate"):
        value = getattr(image_processor, name)
        if type(value) not in (int, float) or not 1 <= value < 1e6:
            raise QuantrustError(f"{folder}: the image processor has {name} {value!r}; expected a number from 1 on")


FAMILY = Gemma3()
