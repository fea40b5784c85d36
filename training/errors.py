"""The root of the errors that a person can mend, and words for messages. The command line prints no traceback."""

import errno


class TrainingError(Exception):
    """An error that a person can mend. The message says what happened, what was expected and what came."""


class ContractError(TrainingError):
    """A model repository that breaks the contract, or a version that does not exist."""


class RepositoryUnreadable(ContractError):
    """A file or folder of the model repository that the system does not let this process read."""


class ArchiveError(TrainingError):
    """An archive that is damaged, or is none, or has a member that is refused; the message names it."""


class ArchiveTooLarge(ArchiveError):
    """An archive that unpacks to more than a limit; the message says which."""


class StorageUnavailable(TrainingError):
    """A folder that the system does not let this process use."""


class StorageFull(StorageUnavailable):
    """A folder on a disk that is full."""


class UsageError(TrainingError):
    """A command that lacks a required argument, or has flags that exclude each other."""


def words_of(error: Exception) -> str:
    """Returns an error's message, without the system's error number and the file's name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def storage_error(folder: str, error: OSError) -> StorageUnavailable:
    """Returns the error of a folder, such as `the datasets folder`, for what the system says of it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"the disk of {folder} is full, nothing was kept")
    return StorageUnavailable(f"{folder} cannot be used: {words_of(error)}")


def few(names: list[str], most: int = 5, *, quote: bool = True) -> str:
    """Returns the first names of a list for a message, and how many more there are."""
    shown = ", ".join(map(repr, names[:most]) if quote else names[:most])
    return (shown or "nothing") + (f" and {len(names) - most} more" if len(names) > most else "")
