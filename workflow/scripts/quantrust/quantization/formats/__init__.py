"""Formats of other libraries in which checkpoints are exported, one module each.

A format is called as its module, with hyphens for underscores. A module ends in the record of its format, `FORMAT`: a
`quantrust.quantization.export_layer.Format`. `quantrust export --help` shows the first paragraph of
its docstring.
"""
