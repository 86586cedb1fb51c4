"""The Idefics3 family (arXiv 2408.12637)."""

from typing import Any

from PIL import Image
from torch import nn
from transformers.image_processing_backends import PilBackend
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.idefics3.modeling_idefics3 import Idefics3ForConditionalGeneration
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.processing_utils import ProcessorMixin

from quantrust.errors import QuantrustError
from quantrust.models.components import Blocks, Component, GroupRule, NormKind
from quantrust.models.families.shared.clip import clip_blocks
from quantrust.models.families.shared.llama import llama_blocks
from quantrust.models.family import Family, VisionInputs
from quantrust.models.model_config import read_model_config
from quantrust.models.processing import load_chat_template, load_image_processor, load_tokenizer

CONNECTOR = Blocks(
    "model.connector.modality_projection",
    {"proj": "mlp"},
    # pixel shuffle strings the normed channels of neighbouring patches together
    (GroupRule("model.vision_model.post_layernorm", (".proj",), "mlp", merged=True),),
    single=True,
)
LONGEST_SIDE = 4096
"""Pixels that pictures may be scaled to before they are cut into tiles; the library cuts larger numbers off."""


class Idefics3(Family):
    """Adapter of `Idefics3ForConditionalGeneration`."""

    name = "idefics3"
    model_class = Idefics3ForConditionalGeneration
    vision = Component(("model.vision_model",), (clip_blocks("model.vision_model.encoder.layers"),))
    connector = Component(("model.connector",), (CONNECTOR,))
    language = Component(("model.text_model",), (llama_blocks("model.text_model.layers"),))
    embedding = "model.text_model.embed_tokens"
    head = "lm_head"
    final_norm = "model.text_model.norm"
    norms = ((nn.LayerNorm, NormKind.WEIGHT), (LlamaRMSNorm, NormKind.WEIGHT))
    answer_prefix = " "
    processor_keys = ("do_image_splitting", "size.longest_edge")
    published_image_tokens = ("<image>", "<fake_token_around_image>")
    # How the library prepares pictures and prompts.
    image_processor_class: type[PilBackend] = Idefics3ImageProcessorPil
    processor_class: type[ProcessorMixin] = Idefics3Processor

    def load_processor(self, folder: str) -> ProcessorMixin:
        """Load image processor, tokenizer and chat template of a model folder."""
        image_processor = load_image_processor(self.image_processor_class, folder)
        config = read_model_config(folder, self.model_class.config_class)
        tile, square = image_processor.max_image_size, config.vision_config.image_size
        tile = tile.get("longest_edge") if isinstance(tile, dict) else tile
        if tile != square:
            raise QuantrustError(
                f"{folder}: the image processor makes tiles of {tile!r} pixels a side (max_image_size), but the vision "
                f"tower reads {square} (image_size in config.json); both must be of one model: get the folder again"
            )
        longest = getattr(image_processor.size, "longest_edge", None)
        if longest is not None and longest > LONGEST_SIDE:
            raise QuantrustError(
                f"{folder}: the image processor scales pictures to {longest:,} pixels a side (size.longest_edge); "
                f"expected at most {LONGEST_SIDE:,}: correct the file, or get it again"
            )
        template = load_chat_template(folder)
        tokens_per_tile = (square // config.vision_config.patch_size // config.scale_factor) ** 2
        return self.processor_class(
            image_processor,
            load_tokenizer(folder),
            image_seq_len=tokens_per_tile,
            chat_template=template,
        )

    def preprocess(self, processor: Any, images: list[Image.Image]) -> VisionInputs:
        """Turn RGB images into tiles with their masks; the placeholder spells the tiles out."""
        output = processor.image_processor([[image] for image in images], return_row_col_info=True, return_tensors="pt")
        placeholders = tuple(processor.replace_image_token(output, k) for k in range(len(images)))
        tensors = {name: output[name] for name in ("pixel_values", "pixel_attention_mask")}
        return VisionInputs(tensors, placeholders, (None,) * len(images))

    def prompt_tokens(self, processor: Any) -> tuple[str, ...]:
        """Return the tokens that prompts are put together with, the one around tiles included."""
        return (*super().prompt_tokens(processor), processor.fake_image_token)

    def end_token(self, processor: Any) -> str:
        """Return the token that ends the assistant's turn."""
        return "<end_of_utterance>"


FAMILY = Idefics3()
