"""The parts of a model: one kind a file, built from its spec, loaded from a weight reader."""
