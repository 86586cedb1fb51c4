"""Methods that read a weight and no data, one module each; its name is that of the method in schemes.

A module defines ``quantize(weight, bits, group_size, symmetric)``, which returns a
`quantrust.quantization.grid.QuantizedWeight` of a weight of shape (out, in); `group_size` divides `in`.
"""
