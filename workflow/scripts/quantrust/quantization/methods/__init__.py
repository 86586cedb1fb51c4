"""Methods, one module each; its name, in lower-case letters, is that of the method in schemes.

A module ends in the record of its method, `METHOD`: a `DataFree`, `ScaleSearching` or `Sequential` of
`quantrust.quantization.walks`, whose docstrings say what each kind needs. The traits among the fields of a record (see
`quantrust.quantization.method_traits`) are written as literals, because a report or a config check reads them without
running the module.
"""
