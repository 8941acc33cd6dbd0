"""A bound on a run's memory without any dry run, far above the plan: to know at once that there is enough."""

from __future__ import annotations

from srl.plan.job import Job
from srl.plan.rollouts import PREFILL_TOKENS, own_columns

SAFETY = 2.0


def generous_bound(job: Job) -> int:
    """Bytes, with every number in float32 and everything that ever exists there at once.

    A token of a layer leaves fewer than 32 tensors of the hidden size and 10 of the intermediate size behind.
    """
    text = job.build.config.get_text_config()
    hidden, layers, vocab = text.hidden_size, text.num_hidden_layers, text.vocab_size
    wide = getattr(text, "intermediate_size", None) or 4 * hidden
    weights = 2 * vocab * hidden + layers * (4 * hidden**2 + 3 * hidden * wide)
    a_token = layers * (32 * hidden + 10 * wide)
    tokens = max([job.token_budget, PREFILL_TOKENS, *(s.prompt + s.completion for s in job.stages)])
    keys = 0
    for call in (call for stage in job.stages for call in stage.calls):
        together = min(call.prompts, max(1, job.rows_in_flight // call.n))
        columns = 2 * together * call.prompt + own_columns(together * call.n, call.completion, waiting=True)
        keys = max(keys, 2 * layers * hidden * columns + 16 * together * call.n * vocab)
    return int(4 * SAFETY * (6 * weights + tokens * a_token + keys + 3 * 2**24))
