"""New slices drawn from the prior of a model, as codes. Never imports torch."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oasisvq.codec.batches import Batches
from oasisvq.codec.codes import Codes
from oasisvq.codec.frequencies import Frequencies, draw
from oasisvq.codec.headers import Coder, CodesHeader, Kind, SampleType
from oasisvq.codec.pixels import centred_window
from oasisvq.codec.prior import Pass, Prior
from oasisvq.errors import ModelError

DRAFTS = 16  # of the first level of a slice; twice as many bring little more, see RESULTS.md


class Drawing(Batches):
    """The part of `Codec` that draws.

    Attributes:
        prior: of the model, if it has one.
        card: what the model file says of its training.
    """

    prior: Prior | None
    card: dict[str, Any]

    @abstractmethod
    def check_levels(self, levels: int | None) -> int: ...

    @property
    def drawn_side(self) -> int:
        """Side in pixels of the images that `sample` draws."""
        trained_on = self.card.get("size")
        return trained_on if type(trained_on) is int and trained_on > 0 else max(self.config.window)

    def sample(
        self,
        seeds: Sequence[int],
        levels: int | None = None,
        temperature: float = 1.0,
        drafts: int = DRAFTS,
    ) -> list[Codes]:
        """Draw new slices from the prior, one for each seed, as codes of square uint8 images.

        A cell is drawn by those near it, so a slice as a whole may drift from the kind that was drawn
        for it. Therefore the first level is drawn several times, and the draft nearest to the centre of
        its kind is kept; the other levels are drawn for that.

        Args:
            seeds: each alone determines its slice, whatever else is drawn.
            levels: how many levels to draw, from 1 to the model's; its default if None.
            temperature: shares of codes are raised to 1 / temperature. Below 1 the brains are more
                typical, above 1 more varied. The kind of a slice is always drawn at temperature 1.
            drafts: how many first levels to choose from, 1 or more; with 1 the slices are plain draws.

        Raises:
            ModelError: the model has no prior, or an argument is out of range.
        """
        if not 0 < temperature < math.inf or drafts < 1 or min(seeds, default=0) < 0:
            raise ModelError(
                f"temperature {temperature:g}, {drafts} drafts, seeds from {min(seeds, default=0)}; "
                "expected a temperature above 0, drafts from 1 and seeds from 0"
            )
        levels = self.check_levels(levels)
        if self.prior is None:
            raise ModelError(
                f"model {self.fingerprint.hex()[:8]} has no prior to draw from; give it one with "
                "`oasisvq train data/ --prior-only --model ...`"
            )
        side = self.drawn_side
        window = centred_window((side, side), self.config.window, self.config.stride)
        if not seeds:
            return []
        generators = [np.random.default_rng(seed) for seed in seeds]
        kinds = draw(self.prior.kinds_met[None, None], generators, 1.0)[:, 0]

        def choose(_: Pass, frequencies: Frequencies) -> NDArray[np.uint16]:
            return draw(frequencies, generators, temperature)

        grid = window.height, window.width
        kept = self.prior.walk((len(seeds), 1, *grid), kinds, choose)
        least = self._off_its_kind(kept, kinds)
        for _ in range(drafts - 1):
            draft = self.prior.walk(kept.shape, kinds, choose)
            squares = self._off_its_kind(draft, kinds)
            is_nearer = squares < least
            kept[is_nearer], least[is_nearer] = draft[is_nearer], squares[is_nearer]

        def go_on(step: Pass, frequencies: Frequencies) -> NDArray[np.uint16]:
            if step.level == 0:
                return kept[:, 0, step.rows, step.columns]
            return choose(step, frequencies)

        header = CodesHeader(
            coder=Coder.PRIOR,
            kind=Kind.IMAGE,
            sample_type=SampleType.UINT8,
            shape=(side, side),
            stride=self.config.stride,
            window=window,
            levels=levels,
            codebook_size=self.config.codebook_size,
            intensity=(0, 255),
            fingerprint=self.fingerprint,
        )
        indices = self.prior.walk((len(seeds), levels, *grid), kinds, go_on)
        return [Codes(header, each, 0) for each in indices]

    def _off_its_kind(
        self, indices: NDArray[np.uint16], kinds: NDArray[np.integer]
    ) -> NDArray[np.float64]:
        """Squared distances (B,) of indices (B, levels, h, w) to the centres of their kinds (B,)."""
        assert self.prior is not None
        of_all_kinds = self.prior.distances_to_kinds(self.embed(indices))
        squares: NDArray[np.float64] = of_all_kinds[np.arange(len(kinds)), kinds]
        return squares
