"""The command line; the only part of srl that knows Lightning."""
