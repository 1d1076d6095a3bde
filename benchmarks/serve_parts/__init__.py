"""The parts of `benchmarks/serve.py`; `benchmarks/front.py` uses some of them too."""
