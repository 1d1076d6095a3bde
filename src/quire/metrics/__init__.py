"""Prometheus metrics, traces and the lines that a server logs about its work."""
