"""Errors that are the user's to mend: each is one sentence that says what is wrong, where, and what would be right."""


class InvalidInput(ValueError):
    """A wrong experiment, parameter, file or launch; the command line prints the sentence and exits with code 2."""


class DiskFull(Exception):
    """No space is left where results are written; the command line prints the sentence and exits with code 1."""
