"""Errors that a user or a file can cause. Any other exception is a bug in oasisvq.

Each message says what was found, what was expected, and what to do next.
The command line catches `OasisVQError` once and prints it as one line.
"""


class OasisVQError(Exception):
    """Base of all errors that a user or a file can cause."""


class ImageError(OasisVQError):
    """An image cannot be read, or is of a kind that the codec does not support."""


class CodesFileError(OasisVQError):
    """A `.codes` file is damaged, of another version, or made with another model."""


class OtherModelError(CodesFileError):
    """A `.codes` file was made with a different model; the file itself may be undamaged."""


class ModelError(OasisVQError):
    """A model or checkpoint is missing, damaged, or does not fit the request."""


class DatasetError(OasisVQError):
    """A dataset folder is missing, damaged, empty, or not in a known layout."""


class TrainingError(OasisVQError):
    """A training cannot start or go on."""


class FileError(OasisVQError):
    """A file or folder cannot be read or written, or is in the way."""
