"""The parts of a model: one file per kind, built from its spec, loaded from a weight reader."""
