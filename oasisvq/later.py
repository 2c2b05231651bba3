"""A codec whose model is read only when something is first encoded. Never imports torch.

A run over finished files needs only the header of the model: levels, prior, fingerprint.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

from oasisvq.codec.asked import checked_coder, checked_levels, levels_for
from oasisvq.codec.codec import Codec
from oasisvq.codec.headers import Coder
from oasisvq.codec.modelfile import ModelHeader
from oasisvq.codec.wish import Wish
from oasisvq.errors import FileError, ModelError
from oasisvq.files import require_file
from oasisvq.model_store import KnownModel, look_at


class LaterCodec:
    """The codec of a model file; only the header is read until the codec is needed.

    Attributes:
        path: the model file.
        fingerprint: the fingerprint of the model.
        card: what the model file says about its training.
    """

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            FileError: no such file.
            ModelError: not a model of oasisvq.
        """
        require_file(path)
        known = look_at(path)
        if not known.fingerprint:
            raise ModelError(f"{path}: damaged model file: it names no fingerprint; get a whole copy")
        self.path, self.card = path, known.header.card
        self.fingerprint = bytes.fromhex(known.fingerprint)
        self._known = known

    def __getstate__(self) -> dict[str, Any]:
        """Another process reads the model by itself, if it needs it."""
        return {name: held for name, held in self.__dict__.items() if name != "codec"}

    @cached_property
    def codec(self) -> Codec:
        """The codec, read now.

        Raises:
            FileError, ModelError: see `Codec.load`; or the file has been replaced by another model.
        """
        codec = Codec.load(self.path)
        if codec.fingerprint != self.fingerprint:
            raise ModelError(f"{self.path}: was replaced by another model in the meantime; run again")
        return codec

    def check_levels(self, levels: int | None) -> int:
        """See `Codec.check_levels`."""
        return checked_levels(self._known.header.config, levels)

    def levels_for(self, wish: Wish, is_volume: bool) -> int:
        """See `Codec.levels_for`."""
        return levels_for(self._coding(is_volume).config, wish, is_volume)

    def check_coder(self, coder: Coder | None, is_volume: bool = False) -> Coder:
        """See `Codec.check_coder`."""
        return checked_coder(self._coding(is_volume).prior is not None, self.fingerprint, coder)

    def _coding(self, is_volume: bool) -> ModelHeader:
        """See `ModelFile.coding`."""
        header = self._known.header
        return header.volumes if is_volume and header.volumes else header

    def lies_at(self, path: Path) -> bool:
        """Whether a file is a copy of this model, by its header and size."""
        try:
            found: KnownModel = look_at(path)
        except (FileError, ModelError):  # it is copied again
            return False
        same = found.fingerprint == self._known.fingerprint
        return same and found.array_bytes == self._known.array_bytes
