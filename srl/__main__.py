import os

from srl.cli.main import main

# torch asks the system for large pages, where it has them (Linux), if this is set before it is first used.
# SmolLM2-135M on one core, two runs each: updates of 13.2 and 13.7 s took 11.6 and 11.8, rollouts of 6.7 and
# 7.8 s took 6.0 and 6.8. A value that the user has set stays.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

if __name__ == "__main__":
    raise SystemExit(main())
