"""Runs meant for a tracking server: recorded on disk first, sent while the server answers, or later."""
