"""Text from outside, such as the name of a file, as it may be shown. Imports nothing of ours."""


def printable(text: str) -> str:
    """Text with an escape for each character that is not seen as itself.

    Control characters, among them line feeds, could move a terminal's cursor or forge a line; marks of
    direction could turn a name around; and the surrogates that stand for bytes of no Unicode cannot
    be written.
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
