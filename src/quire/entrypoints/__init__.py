"""Older ways to start Quire, under the names that scripts of other engines use."""
