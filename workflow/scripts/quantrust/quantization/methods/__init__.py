"""Methods, one module each; its name is that of the method in schemes.

A module of a method that reads no data defines ``quantize(weight, bits, group_size, symmetric)``, which returns a
`quantrust.quantization.grid.QuantizedWeight` of a weight of shape (out, in); `group_size` divides `in`.
"""
