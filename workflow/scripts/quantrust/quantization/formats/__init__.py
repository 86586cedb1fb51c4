"""Formats of other libraries in which checkpoints are exported, one module each."""
