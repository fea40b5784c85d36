"""The root of the errors that a person can fix: the command line prints their message without a traceback."""


class TrainingError(Exception):
    """An error whose message says what happened, what was expected and what came."""


class ContractError(TrainingError):
    """A model repository that breaks the contract, or a version that does not exist."""


class UsageError(TrainingError):
    """A command that lacks a required argument, or has flags that exclude each other."""


def words_of(error: Exception) -> str:
    """Returns an error's message, without the system's error number and the file's name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
