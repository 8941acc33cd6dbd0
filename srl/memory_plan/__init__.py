"""How much memory a run takes, before it is run: the real code on tensors without storage, and arithmetic."""
