"""The parts of `benchmarks/front.py`: a core that computes nothing, and what is told of its server."""
