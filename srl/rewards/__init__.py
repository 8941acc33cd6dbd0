"""What a response earns: similarity to the expert's step, or a right answer."""
