"""Kept groups -> one optimizer step."""
