"""The result of encoding: the bytes of a file, and what they decode to. Never imports torch."""

from collections.abc import Callable
from typing import NamedTuple

from oasisvq.codec.headers import Coder, CodesHeader
from oasisvq.codec.measure import Measure, Scale, measure
from oasisvq.scans.scan import Scan


class Encoded(NamedTuple):
    """An encoded scan.

    Attributes:
        content: the bytes of its `.codes` file.
        header: of that file.
        scan: the original.
        restore: gives exactly what the file decodes to, without decoding its payload again.
        measured: the quality that the file keeps, if it is known.
    """

    content: bytes
    header: CodesHeader
    scan: Scan
    restore: Callable[[], Scan]
    measured: Measure | None = None

    @property
    def keeps_labels(self) -> bool:
        """Whether the file holds labels, kept exactly."""
        return self.header.coder is Coder.LABELS

    def measure(self, scale: Scale | None = None) -> Measure:
        """The quality that the file keeps; `scale` is the scan's, if it is known."""
        return self.measured or measure(self.scan, self.restore().planes, scale)
