"""The parts of `benchmarks/front.py`: a core that computes nothing, and what its server costs."""
