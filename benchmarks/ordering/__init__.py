"""Parts of benchmarks/ordering.py."""
