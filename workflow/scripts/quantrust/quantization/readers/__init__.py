"""Readers of checkpoints that others quantized, one module for each format; `quantrust.quantization.reader` says what.

A module ends in a record, `READER`.
"""
