"""What happens to a finished model: its card states the quality that it keeps, and it is stored."""

from collections.abc import Callable

import numpy as np

from oasisvq.codec.codec import Codec
from oasisvq.codec.entropy import has_range_coder
from oasisvq.codec.modelfile import write_model
from oasisvq.codec.typical import SLICES
from oasisvq.errors import FileError
from oasisvq.model_store import keep_file
from oasisvq.training.request import Trained


def end(trained: Trained, tell: Callable[[str], None]) -> None:
    """Add the model's typical quality to its card, and store the model.

    If it cannot be stored, it still is in its run folder.
    """
    if trained.has_validation:
        _add_typical(trained, tell)
    try:
        tell(f"model finished, kept as {keep_file(trained.model)}")
    except FileError as error:
        tell(f"model finished, in {trained.model} only: {error}")


def _add_typical(trained: Trained, tell: Callable[[str], None]) -> None:
    """Add to the model file what each number of levels typically keeps of validation slices."""
    codec = Codec.load(trained.model)
    if codec.prior is not None and not has_range_coder():
        return  # `train` reports it, since it cannot score the model either
    planes = trained.dataset.array("validation")
    places = np.unique(np.linspace(0, len(planes) - 1, SLICES).astype(int))
    tell(f"measuring what each quality keeps of {len(places)} validation slices")
    card = codec.card_with_typical([np.asarray(planes[place]) for place in places])
    write_model(codec.file.with_card(card), trained.model)
