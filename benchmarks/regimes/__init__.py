"""Parts of benchmarks/regimes.py."""
