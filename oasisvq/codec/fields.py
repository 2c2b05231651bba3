"""Numbers <-> bytes of a `.codes` file, field by field. Never imports torch."""

import struct

from oasisvq.errors import CodesFileError

VARINT_BYTES = 5  # for most numbers: 35 bits
LONG_BYTES = 10  # for numbers of up to 64 bits


def varint(number: int) -> bytes:
    """Unsigned LEB128."""
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def signed(number: int) -> bytes:
    """A number v as the varint of 2v or, if v is below 0, of -2v - 1."""
    return varint(2 * number if number >= 0 else -2 * number - 1)


class Reader:
    """Takes fields from the front of a file."""

    def __init__(self, content: bytes, name: str) -> None:
        self.content, self.name, self.position = content, name, 0

    def fail(self, message: str) -> CodesFileError:
        """An error of this file."""
        return CodesFileError(f"{self.name}: {message}")

    def take(self, count: int) -> bytes:
        """The next bytes.

        Raises:
            CodesFileError: there are fewer.
        """
        taken = self.content[self.position : self.position + count]
        if len(taken) < count:
            raise self.fail(
                f"truncated: ends after {len(self.content)} bytes, within the header; "
                "get a whole copy of the file"
            )
        self.position += count
        return taken

    def varint(self, field: str, low: int, high: int, longest: int = VARINT_BYTES) -> int:
        """The next number, which messages call `field`, from `low` to `high`.

        Raises:
            CodesFileError: it is out of this range, longer, or not in its shortest form.
        """
        number = 0
        for place in range(longest):
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << (7 * place)
            if byte < 0x80:
                if byte == 0 and place:
                    break
                if not low <= number <= high:
                    raise self.fail(
                        f"damaged: {field} is {number}, expected {low} to {high}; "
                        "get a whole copy of the file"
                    )
                return number
        raise self.fail(f"damaged: {field} is no number in its shortest form; get a whole copy")

    def signed(self, field: str, limit: int) -> int:
        """The next signed number, from -limit to limit.

        Raises:
            CodesFileError: see `varint`.
        """
        number = self.varint(field, 0, 2 * limit, LONG_BYTES)
        return number // 2 if number % 2 == 0 else -(number + 1) // 2

    def float64(self) -> float:
        """The next float64, which may be NaN or infinite.

        Raises:
            CodesFileError: there are too few bytes.
        """
        number: float = struct.unpack("<d", self.take(8))[0]
        return number
