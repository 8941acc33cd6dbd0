"""A trajectory -> prompts with targets."""
