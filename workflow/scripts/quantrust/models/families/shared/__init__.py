"""Blocks that several families share, one module for each architecture of blocks."""
