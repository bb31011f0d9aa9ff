"""Names of tensors upstream and here: one table, read both ways.

The original's names are ours. Whisper's encoder has the same parts under another prefix; its decoder has no place here.
The projection and the two rows around a clip (`transformer.audio.proj`, `transformer.audio.audio_bos_eos_token`) belong to
Qwen-Audio alone, so they have no upstream name in Whisper.

    upstream (Whisper's .pt)               here
    encoder.conv1.weight                   transformer.audio.conv1.weight
    encoder.blocks.3.attn.query.bias       transformer.audio.blocks.3.attn.query.bias
    encoder.ln_post.weight                 transformer.audio.ln_post.weight
    encoder.positional_embedding           transformer.audio.positional_embedding

Source: class AudioEncoder in model.py of Whisper, in audio.py of Qwen-Audio.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from qwenaudio_np.names import AUDIO_PREFIX, Shape

QWEN, WHISPER = "qwen", "whisper"

# The parts of the encoder that both have: what a name must be behind its prefix to be mapped.
_SHARED = (
    r"(conv[12]\.(weight|bias)|positional_embedding|ln_post\.(weight|bias)"
    r"|blocks\.\d+\.((attn|mlp)_ln\.(weight|bias)|attn\.key\.weight|attn\.(query|value|out)\.(weight|bias)|mlp\.[02]\.(weight|bias)))"
)
# Family -> pairs of (prefix upstream, prefix here, pattern of the rest).
TABLE: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    QWEN: (("", "", ".+"),),
    WHISPER: (("encoder.", AUDIO_PREFIX, _SHARED),),
}


def from_upstream(family: str, name: str) -> str | None:
    """Our name of a tensor of QWEN or WHISPER; None for one that has no place here."""
    return _mapped(name, [(upstream, ours, rest) for upstream, ours, rest in TABLE[family]])


def to_upstream(family: str, name: str) -> str | None:
    """The upstream name of one of our tensors; None where the family has no such tensor."""
    return _mapped(name, [(ours, upstream, rest) for upstream, ours, rest in TABLE[family]])


def encoder_tensors(dims: Mapping[str, int]) -> dict[str, Shape]:
    """Our name -> shape of every tensor that Whisper's encoder with these sizes gives, in the order of the data flow."""
    mels, positions, state = dims["n_mels"], dims["n_audio_ctx"], dims["n_audio_state"]
    shapes: dict[str, Shape] = {
        "conv1.weight": (state, mels, 3),
        "conv1.bias": (state,),
        "conv2.weight": (state, state, 3),
        "conv2.bias": (state,),
        "positional_embedding": (positions, state),
    }
    for i in range(dims["n_audio_layer"]):
        for norm, matrices in (("attn_ln", ("attn.query", "attn.key", "attn.value", "attn.out")), ("mlp_ln", ("mlp.0", "mlp.2"))):
            shapes |= {f"blocks.{i}.{norm}.weight": (state,), f"blocks.{i}.{norm}.bias": (state,)}
            for matrix in matrices:
                rows, columns = {"mlp.0": (4 * state, state), "mlp.2": (state, 4 * state)}.get(matrix, (state, state))
                shapes[f"blocks.{i}.{matrix}.weight"] = (rows, columns)
                if matrix != "attn.key":
                    shapes[f"blocks.{i}.{matrix}.bias"] = (rows,)
    shapes |= {"ln_post.weight": (state,), "ln_post.bias": (state,)}
    return {AUDIO_PREFIX + name: shape for name, shape in shapes.items()}


def _mapped(name: str, table: list[tuple[str, str, str]]) -> str | None:
    for before, after, rest in table:
        if name.startswith(before) and re.fullmatch(rest, name[len(before) :]):
            return after + name[len(before) :]
    return None
