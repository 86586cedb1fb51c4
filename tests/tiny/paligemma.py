"""PaliGemma."""

from tiny import Tiny


def _published_name(name: str) -> str:
    """Return the name from before the library put all parts under `model`, and the tower's within `vision_model`."""
    name = name.replace("model.language_model.", "language_model.model.")
    return name.replace("model.vision_tower.", "vision_tower.vision_model.").replace("model.multi_", "multi_")


TINY = Tiny(
    repository="google/paligemma-3b-mix-224",
    config={
        "hidden_size": 64,
        "projection_dim": 64,
        "text_config": {
            "head_dim": 16,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "num_key_value_heads": 1,
            "vocab_size": 1856,
        },
        "vision_config": {
            "hidden_size": 64,
            "image_size": 56,
            "intermediate_size": 80,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "projection_dim": 64,
        },
    },
    wide={"text_config": {"num_hidden_layers": 2}, "vision_config": {"num_hidden_layers": 2}},
    preprocessor={"size": {"height": 56, "width": 56}},
    settings={},
    end="<eos>",
    # every picture is one square of 4 x 4 patches
    tokens=(16,) * 4,
    # both norms and values of a block; the last norm; both norms and up of a decoder block
    folds={"vision": 2 * 3, "connector": 1, "language": 2 * 3},
    refused=("o_proj", "fc2"),
    published_name=_published_name,
    # the library's processor puts both in
    given=lambda text: text.replace("<bos>", "").removesuffix("\n"),
)
