"""The error that is the user's to mend."""


class InvalidInput(ValueError):
    """A wrong file or choice, in one sentence: what is wrong, where, what would be right; exit code 2."""


class Absent(InvalidInput):
    """Nothing is wrong, but the files do not hold what was asked for."""
