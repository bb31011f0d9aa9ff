"""What the twin computes from an exported checkpoint, kept for the tests: `python -m demo.fixture MODEL`.

Writes tests/fixtures/embedded_model.safetensors: for one recording and the tags of speech recognition, the prompt's ids, the audio vectors
and the logits behind the prompt, all by PyTorch in float32 from the checkpoint's bfloat16 weights. tests/test_embedded_model.py holds the
package to them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import save_file
from torch import Tensor

from demo.front_end import log_mel
from demo.twin import Twin
from qwenaudio_np.audio import position_count
from qwenaudio_np.prompt import base_prompt
from qwenaudio_np.special_tokens import AUDIO_START
from qwenaudio_np.tasks import task_prompt
from qwenaudio_np.tokenizer import Tokenizer

CLIP = Path("examples/ill_disposed.flac")
OUT = Path("tests/fixtures/embedded_model.safetensors")


def main() -> None:
    """Write the fixture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    folder = parser.parse_args().model
    twin = Twin.from_checkpoint(folder).eval()
    wave, _ = soundfile.read(CLIP, dtype="float32")
    ids, vectors, logits = compute(twin, wave, Tokenizer.from_file(folder / "qwen.tiktoken"))
    save_file({"ids": ids, "vectors": vectors, "logits": logits}, OUT)


@torch.inference_mode()
def compute(twin: Twin, wave: np.ndarray, tokenizer: Tokenizer) -> tuple[Tensor, Tensor, Tensor]:
    """Prompt ids [length], audio vectors [N, hidden], logits of the last position [vocabulary]."""
    positions = torch.tensor([position_count(len(wave))])
    mel = log_mel(torch.from_numpy(wave.astype(np.float64))[None], 2 * positions).float()
    ids = torch.tensor(base_prompt(tokenizer, task_prompt("asr")[0], (int(positions) // 2,)).ids)
    span = (ids == tokenizer.special_ids[AUDIO_START]).nonzero()[0]
    vectors = twin.audio(mel, positions)
    hidden, _ = twin(ids[None], span, vectors, positions // 2)
    return ids, vectors[0].contiguous(), twin.logits(hidden[0, -1]).contiguous()


if __name__ == "__main__":
    main()
