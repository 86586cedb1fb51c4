"""Kernels: products with packed weights on the CPU and on NVIDIA GPUs, and with float32 weights through oneDNN."""
