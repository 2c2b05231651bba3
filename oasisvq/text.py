"""Text from outside, such as the name of a file: as it may be shown, and whether a file may bear it.

Imports nothing of ours.
"""

import os
from pathlib import PureWindowsPath

MAX_NAME_BYTES = 255  # of a file or folder, on most systems
_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {  # on Windows, whatever their ending
    f"{name}{number}" for name in ("COM", "LPT") for number in "0123456789¹²³"
}


def printable(text: str) -> str:
    """Text with an escape for each character that is not seen as itself.

    Control characters, among them line feeds, could move a terminal's cursor or forge a line; marks of
    direction could turn a name around; and the surrogates that stand for bytes of no Unicode cannot
    be written.
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def is_safe_name(name: str) -> bool:
    """Whether a file or folder may be called so on every system, and lies where it is put."""
    try:
        size = len(os.fsencode(name))
    except UnicodeEncodeError:
        return False
    device = name.split(".", maxsplit=1)[0].rstrip().upper()
    is_plain = not {"\0", "/", "\\"} & set(name) and not PureWindowsPath(name).drive
    is_named = bool(name.strip("."))  # neither this folder nor the one above
    return 0 < size <= MAX_NAME_BYTES and is_plain and is_named and device not in _DEVICES
