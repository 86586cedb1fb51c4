"""The names of a model folder's files, as they are published, and what their configs call quantization."""

WEIGHTS = "model.safetensors"
WEIGHT_SUFFIX = ".safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
"""Files of an adapter that is not merged into the weights."""
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".onnx")
"""Of files that hold weights, in whatever format."""
COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.jinja",
    "chat_template.json",
)
"""The files that are not weights, where a folder has them."""
QUANTIZATION = ("quantization_config", "compression_config")
"""Keys of a `config.json` that say how weights were quantized."""
