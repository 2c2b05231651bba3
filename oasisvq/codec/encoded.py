"""What encoding gives, before it is a file: its bytes, and what they decode to. Never imports torch."""

from collections.abc import Callable
from typing import NamedTuple

from oasisvq.codec.headers import Coder, CodesHeader
from oasisvq.codec.measure import Measure, Scale, measure
from oasisvq.scans.scan import Scan


class Encoded(NamedTuple):
    """A scan that was encoded.

    Attributes:
        content: the bytes of its `.codes` file.
        header: of that file.
        scan: that was encoded.
        restore: gives what the file decodes to; exactly so, without decoding its payload again.
        measured: what is left of the scan, where that is known.
    """

    content: bytes
    header: CodesHeader
    scan: Scan
    restore: Callable[[], Scan]
    measured: Measure | None = None

    @property
    def keeps_labels(self) -> bool:
        """Whether it holds labels, kept exactly."""
        return self.header.coder is Coder.LABELS

    def measure(self, scale: Scale | None = None) -> Measure:
        """What is left of the scan; `scale` is its scale, where that is known."""
        return self.measured or measure(self.scan, self.restore().planes, scale)
