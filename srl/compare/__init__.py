"""Comparing runs: read from MLflow, grouped by method, as tables, plots and one HTML report."""
