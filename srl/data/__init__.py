"""A line of a file -> a trajectory: the expert's solution of one problem, in steps."""
