"""Post-training weight quantization: one quantized weight, one module per method."""
