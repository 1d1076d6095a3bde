"""The parts of `benchmarks/gpu.py`: what is measured, against what, and how it is told."""
