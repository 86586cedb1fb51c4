"""The LLaVA 1.5 family (arXiv 2310.03744)."""

from typing import Any

from PIL import Image
from torch import nn
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.modeling_llava import LlavaForConditionalGeneration
from transformers.models.llava.processing_llava import LlavaProcessor

from quantrust.models.decoder import decoder_scale_groups
from quantrust.models.family import Family, ScaleGroup, VisionInputs
from quantrust.models.model_config import read_model_config
from quantrust.models.processing import load_chat_template, load_image_processor, load_tokenizer


class Llava(Family):
    """Adapter of `LlavaForConditionalGeneration`."""

    name = "llava"
    model_class = LlavaForConditionalGeneration
    decoder = "model.language_model"
    embedding = "model.language_model.embed_tokens"
    tower = "model.vision_tower"
    tower_blocks = "model.vision_tower.encoder.layers"
    connector = "model.multi_modal_projector"
    connector_body = "model.multi_modal_projector"
    answer_prefix = " "

    def scale_groups(self, model: nn.Module, block_name: str) -> list[ScaleGroup]:
        """Return the groups of one vision or language block, or of the connector."""
        if block_name == self.connector_body:
            first, last = f"{block_name}.linear_1", f"{block_name}.linear_2"
            # the vision tower's last norm is not on the way to the connector: nothing can absorb a scale
            return [ScaleGroup(None, (first,), block_name, "mlp"), ScaleGroup(None, (last,), last, "mlp")]
        if not block_name.startswith(self.tower_blocks):
            return decoder_scale_groups(model, block_name)
        attention, mlp = f"{block_name}.self_attn", f"{block_name}.mlp"
        inputs = tuple(f"{attention}.{name}_proj" for name in "qkv")
        return [
            ScaleGroup(f"{block_name}.layer_norm1", inputs, attention, "attention"),
            ScaleGroup(inputs[2], (f"{attention}.out_proj",), f"{attention}.out_proj", "attention"),
            ScaleGroup(f"{block_name}.layer_norm2", (f"{mlp}.fc1",), mlp, "mlp"),
            ScaleGroup(None, (f"{mlp}.fc2",), f"{mlp}.fc2", "mlp"),
        ]

    def load_processor(self, folder: str) -> LlavaProcessor:
        """Load image processor, tokenizer and chat template of a model folder."""
        config = read_model_config(folder, self.model_class.config_class)
        return LlavaProcessor(
            load_image_processor(CLIPImageProcessorPil, folder),
            load_tokenizer(folder),
            patch_size=config.vision_config.patch_size,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            chat_template=load_chat_template(folder),
            # the class token, which the strategy "default" drops
            num_additional_image_tokens=1,
        )

    def preprocess(self, processor: Any, images: list[Image.Image]) -> VisionInputs:
        """Turn RGB images into pixels."""
        output = processor.image_processor(images, return_tensors="pt")
        placeholders = tuple(processor.replace_image_token(output, k) for k in range(len(images)))
        return VisionInputs({"pixel_values": output["pixel_values"]}, placeholders, (None,) * len(images))

    def end_token(self, processor: Any) -> str:
        """Return the token that ends an answer."""
        return processor.tokenizer.eos_token


FAMILY = Llava()
