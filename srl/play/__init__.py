"""The policy plays: turns sampled for all episodes at once, answered by worlds, kept as rows to train on."""
