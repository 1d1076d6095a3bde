"""Which tokens are computed next. Imports no torch, so its tests run in milliseconds."""
