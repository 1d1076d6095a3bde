"""Kernels for CPUs, in C++, compiled on the machine that runs them.

`library` says why a machine cannot have them; only then does anybody do without.
"""
