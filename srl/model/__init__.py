"""From a name to a policy: files, weights, adapters, log-probabilities, checkpoints."""
