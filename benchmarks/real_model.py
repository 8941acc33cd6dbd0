"""SmolLM2-135M-Instruct on GSM8K: base, SFT, RLVR, SRL, and SRL then RLVR, with equal tokens.

Beside them: SRL with another seed, which says how far one run may be trusted; SRL whose reward compares by
token; and SRL in whose updates every fourth row is an expert's whole solution.

    python benchmarks/real_model.py --data GSM8K_TRAIN.jsonl --test GSM8K_TEST.jsonl [--output FOLDER]

Each method is a `fit` of configs/smollm2_gsm8k/METHOD.yaml (VARIANTS: with other options) that ends when its
tokens, generated and trained on, reach the budget of base.yaml. Then `test` solves the test problems greedily
and, when that is done for all methods, 8 times with noise, in parts of 50 problems, each part for all methods
in turn. Interrupt it when you like (Ctrl-C): what is finished is found by its files and not made again, a
`fit` goes on from its last.ckpt, a part of a test is made anew. What is not there yet is null in the JSON.

SRL then RLVR goes on from the SRL run's state after 7 updates, which are bitwise its own first 7. `base`
needs no run: it is what SRL measured before its first update. --methods makes only these, so that two
processes can share the work (SRL first); --greedy_only leaves the noisy attempts out; --report makes nothing
and sums up what is there.

Writes real_model.json and real_model.png to the output folder, and the JSON as the last line.
"""

from real_model.runs import main

if __name__ == "__main__":
    main()
