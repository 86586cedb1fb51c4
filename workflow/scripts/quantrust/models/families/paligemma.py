"""The PaliGemma family (arXiv 2407.07726)."""

from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import PreTrainedConfig
from transformers.masking_utils import create_causal_mask
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.paligemma.modeling_paligemma import PaliGemmaForConditionalGeneration
from transformers.models.paligemma.processing_paligemma import PaliGemmaProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from quantrust.models.components import Blocks, Component, GroupRule, NormKind
from quantrust.models.families.shared.clip import clip_blocks
from quantrust.models.families.shared.feature_layer import check_parts
from quantrust.models.families.shared.gemma import gemma_blocks
from quantrust.models.families.shared.square import check_square
from quantrust.models.family import EncodedImage, Family, LanguageInputs, Role, VisionInputs
from quantrust.models.model_config import read_model_config
from quantrust.models.processing import load_chat_template, load_image_processor, load_tokenizer

PARTS = {"vision_config": "siglip_vision_model", "text_config": "gemma"}
"""The `model_type` of the parts that this adapter knows, by their key in the config."""

TEMPLATE = (
    "{% for turn in messages %}"
    "{% for part in turn['content'] if part['type'] == 'image' %}<image>{% endfor %}<bos>"
    "{% for part in turn['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{{ '\n' }}{% endfor %}"
)
"""The published prompt, which no file of a folder describes: image, begin of text, the text, and a line's end."""

CONNECTOR = Blocks(
    "model.multi_modal_projector",
    {"linear": "mlp"},
    (GroupRule("model.vision_tower.post_layernorm", (".linear",), "mlp"),),
    single=True,
)


class PaliGemma(Family):
    """Adapter of `PaliGemmaForConditionalGeneration` with a Gemma decoder; that of PaliGemma 2 is another.

    All tokens of a prompt see each other, and only those of the answer come one after another.
    """

    name = "paligemma"
    model_class = PaliGemmaForConditionalGeneration
    vision = Component(("model.vision_tower",), (clip_blocks("model.vision_tower.encoder.layers"),))
    connector = Component(("model.multi_modal_projector",), (CONNECTOR,))
    language = Component(("model.language_model",), (gemma_blocks("model.language_model.layers"),))
    embedding = "model.language_model.embed_tokens"
    embedding_factor = "embed_scale"
    head = "lm_head"
    final_norm = "model.language_model.norm"
    norms = ((nn.LayerNorm, NormKind.WEIGHT), (GemmaRMSNorm, NormKind.ONE_PLUS_WEIGHT))
    attentions = ("eager", "sdpa")
    answer_prefix = ""
    published_image_tokens = ("<image>",)
    reads_in_parts = False

    def running_part(self, config: PreTrainedConfig) -> tuple[dict[str, Any], list[str]]:
        """Return that all blocks run."""
        check_parts(config, self.name, PARTS, "PaliGemma (PaliGemma 2 has a Gemma 2 there)")
        return {}, []

    def load_processor(self, folder: str) -> PaliGemmaProcessor:
        """Load image processor and tokenizer of a model folder, and its chat template where it has one."""
        config = read_model_config(folder, self.model_class.config_class)
        image_processor = load_image_processor(SiglipImageProcessorPil, folder)
        side = config.vision_config.image_size
        check_square(folder, image_processor, side)
        image_processor.image_seq_length = (side // config.vision_config.patch_size) ** 2
        template = load_chat_template(folder, default=TEMPLATE)
        return PaliGemmaProcessor(image_processor, load_tokenizer(folder), chat_template=template)

    def preprocess(self, processor: Any, images: list[Image.Image]) -> VisionInputs:
        """Turn RGB images into squares."""
        output = processor.image_processor(images, return_tensors="pt")
        placeholders = tuple(processor.replace_image_token(output, k) for k in range(len(images)))
        return VisionInputs({"pixel_values": output["pixel_values"]}, placeholders, (None,) * len(images))

    def _position_ids(
        self, model: nn.Module, token_ids: torch.Tensor, roles: torch.Tensor, images: list[EncodedImage]
    ) -> torch.Tensor:
        # the first token is at 1
        return super()._position_ids(model, token_ids, roles, images) + 1

    def read_prompts(
        self, model: nn.Module, inputs: LanguageInputs, cache: Any | None = None
    ) -> tuple[torch.Tensor, Any]:
        """Run the decoder over whole prompts, whose tokens see each other; those of an answer see earlier ones."""
        mask = create_causal_mask(
            config=model.get_submodule(self.decoder).config,
            inputs_embeds=inputs.inputs_embeds,
            attention_mask=inputs.attention_mask,
            past_key_values=cache,
            position_ids=inputs.position_ids,
            block_sequence_ids=torch.where(inputs.roles == Role.ANSWER, -1, 0),
        )
        return self.decode(model, inputs.inputs_embeds, mask, inputs.position_ids, cache)

    def prompt_tokens(self, processor: Any) -> tuple[str, ...]:
        """Return the tokens that prompts and answers are put together with."""
        return (*super().prompt_tokens(processor), "<bos>")

    def end_token(self, processor: Any) -> str:
        """Return the token that ends an answer."""
        return "<eos>"


FAMILY = PaliGemma()
