"""Reliability of quantized multimodal LLMs in visual question answering."""
