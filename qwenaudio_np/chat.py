"""A conversation: questions and answers in turn, each question with clips of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qwenaudio_np.cache import Memory
from qwenaudio_np.sources import as_clip

if TYPE_CHECKING:
    from qwenaudio_np.model import QwenAudio
    from qwenaudio_np.request import Result


class Chat:
    """Remembers the turns of one conversation with a model.

    `history` is a list of {"query": str, "audio": [...], "answer": str}, the form of the command line's --history file. Keys, values
    and encoded clips of earlier turns are used again where the original computes everything anew at every turn.
    """

    def __init__(self, model: QwenAudio, system: str | None = None) -> None:
        self.model = model
        self.system = system
        self.history: list[dict[str, Any]] = []
        self._memory = Memory()

    def ask(self, query: str, audio: Sequence[Any] = (), **options: Any) -> Result:
        """Ask in the light of all turns so far. `options`: those of `qwenaudio_np.request.answer`."""
        clips = [as_clip(source) for source in audio]  # read once; later turns use them again
        asked = {"format": "chat", "system": self.system, "history": self.history, "memory": self._memory}
        result = self.model.generate(query, clips, **asked, **options)
        self.history.append({"query": query, "audio": clips, "answer": result.text})
        return result
