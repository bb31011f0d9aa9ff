"""The model once more in PyTorch, for training only; parameter names are the checkpoint's, so exporting is a dictionary.

The package's own encoder.py and decoder.py are the definition; tests/test_embedded_model.py holds both to the same numbers. The
difference is a batch axis: clips are padded at the end, where no attention looks.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from demo import sizes
from demo.padding import own_places

LISTENING_BLOCK, LISTENING_HEAD = 2, 0  # the head of the decoder that is shown where in the clip to look (losses.py, listening_loss)


def first_parts(blocks: int) -> tuple[str, ...]:
    """How the names of the parameters begin that belong to the convolutions and the first `blocks` blocks of the encoder."""
    return ("audio.conv", *(f"audio.blocks.{number}." for number in range(blocks)))


class Attention(nn.Module):
    """Self-attention of an encoder block. No bias on the key, as in Whisper."""

    def __init__(self, state: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.value, self.out = (nn.Linear(state, state) for _ in range(3))
        self.key = nn.Linear(state, state, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [clips, T, state], mask [clips, 1, 1, T] (True: a real position) -> [clips, T, state]."""
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        return self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2))


class AudioBlock(nn.Module):
    """A pre-norm encoder block."""

    def __init__(self, state: int, heads: int) -> None:
        super().__init__()
        self.attn_ln, self.mlp_ln = nn.LayerNorm(state), nn.LayerNorm(state)
        self.attn = Attention(state, heads)
        self.mlp = nn.Sequential(nn.Linear(state, 4 * state), nn.GELU(), nn.Linear(4 * state, state))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x [clips, T, state] -> the same shape."""
        x = x + self.attn(self.attn_ln(x), mask)
        return x + self.mlp(self.mlp_ln(x))


class Ear(nn.Module):
    """The encoder: Whisper's convolutions, positions and blocks; more blocks; pool, norm, projection, the two rows around a clip."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(80, sizes.STATE, 3, padding=1)
        self.conv2 = nn.Conv1d(sizes.STATE, sizes.STATE, 3, stride=2, padding=1)
        self.register_buffer("positional_embedding", torch.zeros(1500, sizes.STATE))
        self.blocks = nn.ModuleList(AudioBlock(sizes.STATE, sizes.ENCODER_HEADS) for _ in range(sizes.WHISPER_BLOCKS + sizes.MORE_BLOCKS))
        self.ln_post = nn.LayerNorm(sizes.STATE)
        self.proj = nn.Linear(sizes.STATE, sizes.HIDDEN)
        self.audio_bos_eos_token = nn.Embedding(2, sizes.HIDDEN)

    def forward(self, mel: Tensor, positions: Tensor) -> Tensor:
        """mel [clips, 80, 2T], 0 behind a clip's end, positions [clips] (how many of T are real) -> [clips, T // 2, hidden]."""
        x = self.states(mel, positions, len(self.blocks))
        pooled = F.avg_pool1d(x.transpose(1, 2), 2).transpose(1, 2)
        return self.proj(self.ln_post(pooled))

    def states(self, mel: Tensor, positions: Tensor, blocks: int) -> Tensor:
        """What the first `blocks` blocks make of mel: [clips, T, state]."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.positional_embedding[: x.shape[1]]
        mask = own_places(positions, x.shape[1])[:, None, None]
        for block in self.blocks[:blocks]:
            x = block(x, mask)
        return x


class RMSNorm(nn.Module):
    """x * rsqrt(mean(x^2) + eps) * weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(sizes.HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., hidden] -> the same shape."""
        return F.rms_norm(x, (sizes.HIDDEN,), self.weight, sizes.EPSILON)


class CausalAttention(nn.Module):
    """The decoder's attention, with rotary positions in the halves layout."""

    def __init__(self) -> None:
        super().__init__()
        self.c_attn = nn.Linear(sizes.HIDDEN, 3 * sizes.HIDDEN)
        self.c_proj = nn.Linear(sizes.HIDDEN, sizes.HIDDEN, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [clips, length, hidden] -> the same shape."""
        q, k, v = (part.unflatten(-1, (sizes.HEADS, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, -1))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        return self.c_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))

    def looks(self, x: Tensor, cos: Tensor, sin: Tensor, head: int) -> Tensor:
        """x [clips, length, hidden] -> [clips, length, length], the log of how much of `head` each position gives to each."""
        width = sizes.HIDDEN // sizes.HEADS
        query, key = (slice(start + head * width, start + (head + 1) * width) for start in (0, sizes.HIDDEN))
        q, k = (rotate(F.linear(x, self.c_attn.weight[part], self.c_attn.bias[part]), cos, sin) for part in (query, key))
        scores = q @ k.transpose(1, 2) / math.sqrt(width)
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        return scores.masked_fill(later, -math.inf).log_softmax(-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [..., length, head_dim] turned by the angles of its positions: [-x2, x1] is the quarter turn of [x1, x2]."""
    first, second = x.chunk(2, -1)
    return x * cos.to(x.dtype) + torch.cat([-second, first], -1) * sin.to(x.dtype)


def rotary_tables(length: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """cos and sin [length, head_dim]."""
    width = sizes.HIDDEN // sizes.HEADS
    frequencies = 10000.0 ** (-torch.arange(0, width, 2, device=device) / width)
    angles = torch.outer(torch.arange(length, device=device).float(), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


class FeedForward(nn.Module):
    """SwiGLU with the silu on w2."""

    def __init__(self) -> None:
        super().__init__()
        self.w1, self.w2 = (nn.Linear(sizes.HIDDEN, sizes.INNER, bias=False) for _ in range(2))
        self.c_proj = nn.Linear(sizes.INNER, sizes.HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., hidden] -> the same shape."""
        return self.c_proj(self.w1(x) * F.silu(self.w2(x)))


class Block(nn.Module):
    """A decoder block."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = RMSNorm(), RMSNorm()
        self.attn, self.mlp = CausalAttention(), FeedForward()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [clips, length, hidden] -> the same shape."""
        x = x + self.attn(self.ln_1(x), cos, sin)
        return x + self.mlp(self.ln_2(x))


class Twin(nn.Module):
    """The whole model. `wte` is both the embedding and the output matrix (tied)."""

    def __init__(self) -> None:
        super().__init__()
        self.audio = Ear()
        self.wte = nn.Embedding(sizes.padded_vocabulary(), sizes.HIDDEN)
        self.h = nn.ModuleList(Block() for _ in range(sizes.LAYERS))
        self.ln_f = RMSNorm()
        self.apply(_initialise)
        for block in self.h:  # the residual stream must not grow with depth
            for matrix in (block.attn.c_proj, block.mlp.c_proj):
                nn.init.normal_(matrix.weight, std=0.04 / math.sqrt(2 * sizes.LAYERS))

    @classmethod
    def from_checkpoint(cls, folder: Path) -> Twin:
        """The twin with the weights of an exported model."""
        twin = cls()
        stored = load_file(folder / "model.safetensors")
        twin.load_state_dict({name.removeprefix("transformer."): array.float() for name, array in stored.items()})
        return twin

    def forward(self, ids: Tensor, spans: Tensor, vectors: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """The last hidden states [rows, length, hidden], and those that go into block LISTENING_BLOCK, for `looks`.

        ids [rows, length]; the `<audio>` tag of row k stands at spans[k], the first counts[k] of its vectors [rows, N, hidden] are real.
        """
        x = self.wte(ids)
        begin, end = self.audio.audio_bos_eos_token.weight
        inside = own_places(counts, vectors.shape[1])  # [rows, N]
        row, step = inside.nonzero(as_tuple=True)
        every = torch.arange(len(ids), device=x.device)
        places = torch.cat([spans[row] + 1 + step, spans, spans + 1 + counts])
        values = torch.cat([vectors[inside], begin.expand(len(ids), -1), end.expand(len(ids), -1)]).to(x.dtype)
        x = x.index_put((torch.cat([row, every, every]), places), values)
        cos, sin = rotary_tables(ids.shape[1], x.device)
        for number, block in enumerate(self.h):
            if number == LISTENING_BLOCK:
                listening = x
            x = block(x, cos, sin)
        return self.ln_f(x), listening

    def looks(self, listening: Tensor) -> Tensor:
        """Where the listening head looks: [rows, length, length], log probabilities over the positions up to each one."""
        block = self.h[LISTENING_BLOCK]
        return block.attn.looks(block.ln_1(listening), *rotary_tables(listening.shape[1], listening.device), LISTENING_HEAD)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., hidden] -> [..., vocabulary]."""
        return hidden @ self.wte.weight.T


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.04)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.04)
