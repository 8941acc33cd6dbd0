"""Supervised Reinforcement Learning (SRL): a language model learns an expert's steps, one reward a step.

The method is that of arXiv 2510.25992. `import srl` loads nothing heavy: no torch, no transformers, no
Lightning.
"""

__version__ = "0.1.0"
