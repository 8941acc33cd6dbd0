"""What begins alike is computed once: token trees, their attention, micro-batches of them."""
