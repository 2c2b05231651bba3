"""Quality of single scans: an image or a volume, encoded to a real file and decoded."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from oasisvq.codec import container
from oasisvq.codec.codec import Codec
from oasisvq.codec.headers import CodesHeader
from oasisvq.codec.measure import Measure, measure
from oasisvq.codec.wish import Wish
from oasisvq.evaluation.metrics import overlap
from oasisvq.scans.limits import DEFAULT_MAX_PIXELS
from oasisvq.scans.scan import Scan, read_scan
from oasisvq.scans.source import Source


class ScanScore(NamedTuple):
    """The results of a quality for one scan."""

    levels: int  # 0: labels kept exactly
    file_bytes: int
    bits_per_voxel: float
    measure: Measure
    dice: dict[float, float]  # by label; empty for scans

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        fields = self._asdict()
        del fields["measure"]
        dice = {str(label): None if math.isnan(value) else value for label, value in self.dice.items()}
        return fields | self.measure.as_dict() | {"dice": dice}


def dice_of(original: Scan, restored: Scan, header: CodesHeader) -> dict[float, float]:
    """Dice of each label that a header names."""
    return {label: overlap(original.planes, restored.planes, label).dice for label in header.labels}


def score_scan(
    codec: Codec,
    source: Source,
    wishes: list[Wish],
    advance: Callable[[int, int], None] = lambda done, total: None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> list[ScanScore]:
    """Encode and decode a scan at each wish and measure what was lost.

    Raises:
        ImageError: the scan cannot be read or encoded.
        ModelError: a wish does not fit the model.
    """
    scores = []
    for done, wish in enumerate(wishes, start=1):
        scan = read_scan(source, wish.axis, max_pixels)
        content = codec.encode_scan(scan, wish)
        file = container.read(content, str(source.path))
        restored = codec.decode_codes(codec.codes_of(file), str(source.path))
        scores.append(
            ScanScore(
                file.header.levels,
                len(content),
                8 * len(content) / scan.planes.size,
                measure(scan, restored.planes),
                dice_of(scan, restored, file.header),
            )
        )
        advance(done, len(wishes))
    return scores
