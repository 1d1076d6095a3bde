"""The parts of `benchmarks/front.py`: a core that computes nothing, and CPU times of its server."""
