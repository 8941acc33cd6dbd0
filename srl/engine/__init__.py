"""The rollout engine: batched sampling from the very weights that train, one prefill a distinct prompt."""
