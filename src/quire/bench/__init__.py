"""Measurements that users run: `quire bench throughput`, `latency` and `startup`."""
