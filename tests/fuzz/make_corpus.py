"""Makes the seeds of tests/fuzz/corpus/, small good inputs of every kind: python -m tests.fuzz.make_corpus

Files of torch.save are assembled byte by byte; real ones, of tests/fixtures/torch/, are used as seeds besides.
"""

from __future__ import annotations

import base64
import json
import pickle
import struct
from collections import OrderedDict
from typing import Any

from tests.fuzz.targets import CORPUS
from tests.make_checkpoint import AUDIO, TEXT
from tests.torch_fixtures import HOOKS, machine, name_of, number, older, several, state, storage, tensor, text, torch_zip

SIX = struct.pack("<6f", *range(6))
FOUR = struct.pack("<4e", *range(4))
TWO = state({"w": tensor(), "v": tensor(storage("1", 4, "HalfStorage"), 1, (3,), (1,))})
STRIDED = state({"w": tensor(), "tied": tensor(), "t": tensor(None, 0, (3, 2), (1, 3)), "none": tensor(None, 0, (0, 3), (3, 1))})
PARAMETER = state({"w": name_of("torch._utils", "_rebuild_parameter") + several(tensor(), b"\x89", HOOKS) + b"R"})
DIMS = ("n_mels", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer")
DIMS += ("n_vocab", "n_text_ctx", "n_text_state", "n_text_head", "n_text_layer")
WHISPER = b"\x80\x02}(" + text("dims") + b"}(" + b"".join(text(name) + number(2) for name in DIMS) + b"u"
WHISPER += text("model_state_dict") + STRIDED[2:-1] + b"u."


def safetensors(header: dict[str, Any], data: bytes, indent: int | None = None) -> bytes:
    """A file: length, header, data."""
    words = json.dumps(header, indent=indent).encode()
    return struct.pack("<Q", len(words)) + words + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    """One tensor of a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def vocabulary(tokens: list[bytes]) -> bytes:
    """A line for each token: base64, rank."""
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))


def files() -> dict[str, bytes]:
    """Every seed by its path in the corpus."""
    two = {"a": entry("F32", [2], 0, 8), "b": entry("U8", [3], 8, 11)}
    many = {"__metadata__": {"format": "pt"}, "m": entry("BF16", [2, 3], 0, 12), "none": entry("F16", [0, 4], 12, 12)}
    many |= {"one": entry("I64", [], 12, 20), "last": entry("BOOL", [1, 1, 4], 20, 24)}
    shards = {name: f"model-0000{i}-of-00002.safetensors" for i, name in ((1, "a"), (2, "b"))}
    manifest = {"format": 1, "version": "0.1.0", "options": {"weights": "int4"}, "sources": [], "dropped": [], "fresh": []}
    manifest |= {"files": {"config.json": {"bytes": 2, "sha256": "00"}}, "tensors": {"a": {"shape": [2], "dtype": "F32", "sha256": "00"}}}
    storages = {"0": (6, SIX), "1": (4, FOUR)}
    bare = {"0": SIX, "1": FOUR}
    text_only = {name: value for name, value in TEXT.items() if name != "no_bias"}
    return {
        "header/two": safetensors(two, bytes(11)),
        "header/many": safetensors(many, bytes(range(24)), indent=1),
        "pickle/two": TWO,
        "pickle/strided": STRIDED,
        "pickle/parameter": PARAMETER,
        "pickle/whisper": WHISPER,
        "pickle/values_2": pickle.dumps(OrderedDict(a=(1, 2), b=None, c=[True, 0.5, 2**40]), 2),
        "pickle/values_4": pickle.dumps({"a": [1, ("b", 2.5)], "c": {"d": ()}}, 4),
        "pickle/hostile": b"\x80\x02" + name_of("os", "system") + several(text("true")) + b"R.",
        "torch/zip": torch_zip(TWO, bare),
        "torch/zip_strided": torch_zip(STRIDED, {"0": SIX}),
        "torch/zip_whisper": torch_zip(WHISPER, {"0": SIX}),
        "torch/older": older(TWO, storages),
        "torch/older_whisper": older(WHISPER, {"0": (6, SIX)}),
        "torch/older_big_endian": older(TWO, storages, machine=machine(little=False)),
        "index/two": json.dumps({"metadata": {"total_size": 11}, "weight_map": shards}).encode(),
        "index/bare": json.dumps({"weight_map": shards}, indent=1).encode(),
        f"shards/{shards['a']}": safetensors({"a": entry("F32", [2], 0, 8)}, bytes(8)),
        f"shards/{shards['b']}": safetensors({"b": entry("U8", [3], 0, 3)}, bytes(3)),
        "config/sound": json.dumps({**TEXT, "audio": {**AUDIO, "output_dim": TEXT["hidden_size"]}}, indent=1).encode(),
        "config/text": json.dumps(text_only).encode(),
        "manifest/small": json.dumps(manifest, indent=1).encode(),
        "vocabulary/bytes": vocabulary([bytes([byte]) for byte in range(256)]),
        "vocabulary/merges": vocabulary([bytes([byte]) for byte in range(256)] + [b"th" + bytes([97 + i]) * (1 + i) for i in range(26)]),
    }


def main() -> None:
    """Write them."""
    for name, data in files().items():
        (CORPUS / name).parent.mkdir(parents=True, exist_ok=True)
        (CORPUS / name).write_bytes(data)


if __name__ == "__main__":
    main()
