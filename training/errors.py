"""The root of the errors that a person can mend, and words for messages. The command line prints no traceback."""


class TrainingError(Exception):
    """An error that a person can mend. The message says what was expected and what came."""


class ContractError(TrainingError):
    """A model repository that is not as the contract says, or a version that is not there."""


class UsageError(TrainingError):
    """A command that was typed without what it cannot do without, or with flags that exclude each other."""


def words_of(error: Exception) -> str:
    """Returns what an error says, without the system's number and the file's name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def few(names: list[str], most: int = 5, *, quote: bool = True) -> str:
    """Returns the first names of a list for a message, and how many more there are."""
    shown = ", ".join(map(repr, names[:most]) if quote else names[:most])
    return (shown or "nothing") + (f" and {len(names) - most} more" if len(names) > most else "")
