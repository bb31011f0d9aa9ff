"""A conversation: questions and answers in turn, each question with clips of its own."""

from __future__ import annotations

from operator import is_
from typing import TYPE_CHECKING, Any

from qwenaudio_np.audio import Clip
from qwenaudio_np.cache import Memory
from qwenaudio_np.errors import UsageError
from qwenaudio_np.prepare import check_history, read_clips

if TYPE_CHECKING:
    from qwenaudio_np.model import QwenAudio
    from qwenaudio_np.request import Result


class Chat:
    """Remembers the turns of one conversation with a model.

    `history` is a list of {"query": str, "audio": [...], "answer": str}, with paths in "audio" the form of the command line's
    --history file (a sound that came as an array has no path there, only a name); turns may be taken from it or put into it. Keys, values
    and encoded clips of earlier turns are used again; the original computes everything anew.
    """

    def __init__(self, model: QwenAudio, system: str | None = None) -> None:
        self.model = model
        self.system = system
        self.history: list[dict[str, Any]] = []
        self._heard: list[tuple[dict[str, Any], list[Any], list[Clip]]] = []  # turns, what they name, and those clips: read once
        self._memory = Memory()

    def ask(self, query: str, audio: Any = (), **options: Any) -> Result:
        """Ask in the light of all turns so far. `options`: those of `QwenAudio.generate`, but for those that a chat brings itself.

        Raises UsageError for these.
        """
        if own := sorted({"format", "system", "history", "memory"} & options.keys()):
            raise UsageError(f"a chat has its own {', '.join(own)}; system text is given to QwenAudio.chat, turns are in Chat.history")
        if options.get("task"):
            raise UsageError("a task is a base prompt, which has no turns; ask the chat in words, or give the task to QwenAudio.generate")
        clips = read_clips(self.model, audio)
        check_history(self.history)
        if type(self.history) is not list:  # whoever put turns in may have given a tuple
            self.history = list(self.history)
        self._heard = [(turn, _named(turn), self._clips_of(turn)) for turn in self.history]
        turns = [{**turn, "audio": heard} for turn, _, heard in self._heard]
        asked = {"format": "chat", "system": self.system, "history": turns, "memory": self._memory}
        result = self.model.generate(query, clips, **asked, **options)
        self.history.append({"query": query, "audio": [clip.path for clip in clips], "answer": result.text})
        self._heard.append((self.history[-1], _named(self.history[-1]), clips))
        return result

    def _clips_of(self, turn: dict[str, Any]) -> list[Clip]:
        """Those that were heard with the turn; of one that was put in, or names other sounds now, they are read now."""
        named = _named(turn)
        for other, before, clips in self._heard:
            if other is turn and len(before) == len(named) and all(map(is_, before, named)):
                return clips
        return read_clips(self.model, turn.get("audio", ()))


def _named(turn: dict[str, Any]) -> list[Any]:
    """The sounds that a turn names, as a list."""
    audio = turn.get("audio", ())
    return list(audio) if isinstance(audio, (list, tuple)) else [audio]
