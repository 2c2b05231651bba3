"""Text from outside, such as file names: made safe to show, or checked for use as a file name.

Imports nothing else of oasisvq.
"""

import os
from pathlib import PureWindowsPath

MAX_NAME_BYTES = 255  # of a file or folder, on most systems
_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {  # on Windows, whatever their ending
    f"{name}{number}" for name in ("COM", "LPT") for number in "0123456789¹²³"
}


def printable(text: str) -> str:
    """Text in which characters that are not visible as themselves are escaped.

    Control characters, such as line feeds, could move the cursor of a terminal or forge a line.
    Direction marks could reverse a name. Surrogates, which stand for bytes that are no valid Unicode,
    cannot be written.
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def is_safe_name(name: str) -> bool:
    """Whether a name is valid for a file or folder on every system, and does not lead elsewhere."""
    try:
        size = len(os.fsencode(name))
    except UnicodeEncodeError:
        return False
    device = name.split(".", maxsplit=1)[0].rstrip().upper()
    is_plain = not {"\0", "/", "\\"} & set(name) and not PureWindowsPath(name).drive
    is_named = bool(name.strip("."))  # neither this folder nor the one above
    return 0 < size <= MAX_NAME_BYTES and is_plain and is_named and device not in _DEVICES
