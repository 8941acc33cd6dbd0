"""What is drawn next, and when a phase ends."""
