"""CUDA kernels for what Triton cannot say, on Hopper."""
