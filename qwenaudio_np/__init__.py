"""Qwen-Audio and Qwen-Audio-Chat in plain NumPy: sound and text in, text out.

    model = qwenaudio_np.load("Qwen-Audio-Chat")
    print(model.generate("what does the person say?", audio=["1272-128104-0000.flac"]).text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Chat", "QwenAudio", "QwenAudioError", "Result", "__version__", "load", "trace"]

if TYPE_CHECKING:
    from qwenaudio_np.chat import Chat
    from qwenaudio_np.errors import QwenAudioError
    from qwenaudio_np.loading import load
    from qwenaudio_np.model import QwenAudio
    from qwenaudio_np.request import Result
    from qwenaudio_np.tracing import trace

# Loaded on first use, so that `import qwenaudio_np` and `qwenaudio-np --help` need not wait for NumPy.
_HOMES = {
    "Chat": "chat",
    "QwenAudio": "model",
    "QwenAudioError": "errors",
    "Result": "request",
    "load": "loading",
    "trace": "tracing",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'qwenaudio_np' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"qwenaudio_np.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
