"""Text worlds: environments that are played with actions of text, in processes of their own."""
