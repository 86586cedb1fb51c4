"""The Mistral 3 family: Mistral Small 3.1 and its successors with a Pixtral tower (arXiv 2410.07073)."""

from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedConfig, PreTrainedTokenizerFast, ProcessorMixin
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.mistral3.modeling_mistral3 import Mistral3ForConditionalGeneration
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil
from transformers.models.pixtral.modeling_pixtral import PixtralRMSNorm

from quantrust.errors import QuantrustError
from quantrust.models.components import Blocks, Component, GroupRule, NormKind
from quantrust.models.families.shared.feature_layer import check_parts, running_blocks
from quantrust.models.families.shared.llama import llama_blocks
from quantrust.models.family import Family, VisionInputs
from quantrust.models.model_config import read_model_config
from quantrust.models.processing import load_chat_template, load_image_processor, load_tokenizer

PARTS = {"vision_config": "pixtral", "text_config": "mistral"}
"""The `model_type` of the parts that this adapter knows, by their key in the config."""

LONGEST_SIDE = 4096
"""Pixels that the longer side of pictures may be scaled to. The published model has 1,540."""

VISION = Blocks(
    "model.vision_tower.transformer.layers",
    {"attention": "attention", "feed_forward": "mlp"},
    (
        GroupRule(
            ".attention_norm",
            (".attention.q_proj", ".attention.k_proj", ".attention.v_proj"),
            "attention",
            inspected=".attention",
        ),
        GroupRule(".attention.v_proj", (".attention.o_proj",), "attention"),
        GroupRule(".ffn_norm", (".feed_forward.gate_proj", ".feed_forward.up_proj"), "mlp", inspected=".feed_forward"),
        GroupRule(".feed_forward.up_proj", (".feed_forward.down_proj",), "mlp"),
    ),
)
CONNECTOR = Blocks(
    "model.multi_modal_projector",
    {"patch_merger": "mlp", "linear_1": "mlp", "linear_2": "mlp"},
    (
        # neighbouring patches are strung together channel by channel, which no fold into the norm describes
        GroupRule(None, (".patch_merger.merging_layer",), "mlp"),
        GroupRule(".patch_merger.merging_layer", (".linear_1",), "mlp"),
        # GELU does not pass a scale on
        GroupRule(None, (".linear_2",), "mlp"),
    ),
    single=True,
)


class ImageOnlyPixtralProcessor(ProcessorMixin):
    """What Pixtral's processor does; the library's own cannot be imported without torchvision.

    Parameters
    ----------
    image_processor : PixtralImageProcessorPil
    tokenizer : PreTrainedTokenizerFast
    chat_template : str
    token_side : int
        Pixels a side that become one feature.
    """

    image_token = "[IMG]"
    row_token = "[IMG_BREAK]"
    last_token = "[IMG_END]"

    def __init__(
        self,
        image_processor: PixtralImageProcessorPil,
        tokenizer: PreTrainedTokenizerFast,
        chat_template: str,
        token_side: int,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.token_side = token_side
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)

    def _process_images(self, images: Any, **settings: Any) -> Any:
        return super()._process_images(images, **settings, patch_size=self.token_side)

    def replace_image_token(self, image_inputs: Any, image_idx: int, **settings: Any) -> str:
        """Return what stands for an image: rows of its tokens, each with a mark at its end."""
        rows, columns = (int(side) // self.token_side for side in image_inputs["image_sizes"][image_idx])
        return self.row_token.join([self.image_token * columns] * rows) + self.last_token


class Mistral3(Family):
    """Adapter of `Mistral3ForConditionalGeneration` with a Pixtral tower and a Mistral decoder."""

    name = "mistral3"
    model_class = Mistral3ForConditionalGeneration
    vision = Component(("model.vision_tower",), (VISION,))
    connector = Component(("model.multi_modal_projector",), (CONNECTOR,))
    language = Component(("model.language_model",), (llama_blocks("model.language_model.layers"),))
    embedding = "model.language_model.embed_tokens"
    head = "lm_head"
    final_norm = "model.language_model.norm"
    norms = ((PixtralRMSNorm, NormKind.WEIGHT), (MistralRMSNorm, NormKind.WEIGHT))
    answer_prefix = ""
    published_image_tokens = ("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    processor_keys = ("size.longest_edge",)

    def running_part(self, config: PreTrainedConfig) -> tuple[dict[str, Any], list[str]]:
        """Cut the vision tower after the block whose output the connector reads: the published one ends there."""
        check_parts(config, self.name, PARTS, "Mistral Small 3.1")
        return running_blocks(config, self.name, VISION.path)

    def load_processor(self, folder: str) -> ImageOnlyPixtralProcessor:
        """Load image processor, tokenizer and chat template of a model folder."""
        config = read_model_config(folder, self.model_class.config_class)
        image_processor = load_image_processor(PixtralImageProcessorPil, folder)
        longest = getattr(image_processor.size, "longest_edge", None)
        side = config.vision_config.patch_size * config.spatial_merge_size
        if not image_processor.do_resize or longest is None or not side <= longest <= LONGEST_SIDE:
            raise QuantrustError(
                f"{folder}: the image processor scales pictures to {longest!r} pixels a side (size.longest_edge, with "
                f"do_resize {image_processor.do_resize}); expected {side} to {LONGEST_SIDE:,}: correct the file, or "
                "get it again"
            )
        if image_processor.do_center_crop:
            raise QuantrustError(f"{folder}: the image processor crops pictures (do_center_crop); set it to false")
        return ImageOnlyPixtralProcessor(image_processor, load_tokenizer(folder), load_chat_template(folder), side)

    def preprocess(self, processor: Any, images: list[Image.Image]) -> VisionInputs:
        """Turn RGB images into pixels, padded to one size, and their own sizes."""
        output = processor.image_processor(images, patch_size=processor.token_side, return_tensors="pt")
        placeholders = tuple(processor.replace_image_token(output, k) for k in range(len(images)))
        tensors = {name: output[name] for name in ("pixel_values", "image_sizes")}
        return VisionInputs(tensors, placeholders, (None,) * len(images))

    def passes(self, inputs: VisionInputs) -> list[VisionInputs]:
        """Return the images one by one: the tower strings the patches of all together and masks by their square."""
        pixels, sizes = inputs.tensors["pixel_values"], inputs.tensors["image_sizes"]
        return [
            VisionInputs(
                {"pixel_values": pixels[k : k + 1, :, :height, :width], "image_sizes": sizes[k : k + 1]},
                inputs.placeholders[k : k + 1],
                inputs.grids[k : k + 1],
            )
            for k, (height, width) in enumerate(sizes.tolist())
        ]

    def _image_features(self, model: Any, tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        sizes = tensors["image_sizes"].tolist()
        return list(model.get_image_features(tensors["pixel_values"], torch.tensor(sizes)).pooler_output)

    def prompt_tokens(self, processor: Any) -> tuple[str, ...]:
        """Return the tokens that prompts are put together with, those at the ends of rows included."""
        return (*super().prompt_tokens(processor), processor.row_token, processor.last_token)

    def end_token(self, processor: Any) -> str:
        """Return the token that ends an answer."""
        return "</s>"


FAMILY = Mistral3()
