"""Which addition to audio vectors parts noise from music at the least cost to answers about speech and notes."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is for training only; pip install '.[train]'")
pytest.importorskip("scipy", reason="for training only; pip install '.[train]'")

from demo import sensitivity, sizes, sounds, words  # noqa: E402
from demo.batches import Batch, Feeder  # noqa: E402
from demo.curriculum import Curriculum  # noqa: E402
from demo.kinds import KINDS  # noqa: E402
from demo.twin import Twin  # noqa: E402
from qwenaudio_np.embedded import FOLDER  # noqa: E402
from tests.test_demo_first_blocks import data  # noqa: E402


def test_what_no_other_answer_needs_is_preferred() -> None:
    """Both numbers part the answers alike; the others' gradients lie along the first."""
    found = sensitivity.direction(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[3.0, 0.0, 0.0], [-3.0, 0.0, 0.0]]))
    assert found @ torch.tensor([1.0, 1.0, 0.0]) == pytest.approx(1.0)
    # F is diag(9, 0, 0) and 3 more everywhere by the damping: its inverse gives 1/12 and 1/3.
    assert found.tolist() == pytest.approx([0.2, 0.8, 0.0])


def scenes_and_notes(folder: Path) -> Batch:
    """A batch of packed clips with both."""
    batches = Feeder(sounds.labels(folder), words.load(folder), 1000, [3], Curriculum({"music": 1.0, "note": 1.0}))
    return next(batch for batch in batches if len(batch.scenes) and len(batch.notes))


@torch.no_grad()
def test_gradients_foretell_what_a_small_addition_does(tmp_path: Path) -> None:
    twin = Twin.from_checkpoint(FOLDER).requires_grad_(False)
    batch = scenes_and_notes(data(tmp_path))
    torch.manual_seed(0)
    vectors = torch.randn(len(batch.samples), int(batch.positions.max()) // 2, sizes.HIDDEN)
    asked, others = sensitivity.gradients(twin, batch, vectors)
    noise, music = (batch.kind_names[KINDS.index(name)][0] for name in ("noise", "music"))

    def told(moved: torch.Tensor) -> tuple[float, float]:
        rows, parted, answered = batch.rows, 0.0, 0.0
        scores = twin.logits(twin(rows.ids, rows.spans, moved, batch.positions // 2)[0])
        for row, targets in enumerate(rows.targets.tolist()):
            for place, target in enumerate(targets):
                if row in batch.notes and target >= 0:
                    answered += scores[row, place].log_softmax(-1)[target].item()
                elif row in batch.scenes and target in (noise, music):
                    parted += (scores[row, place, noise] - scores[row, place, music]).item()
        return parted, answered

    for number, found in enumerate((asked, others)):
        step = 1e-2 * torch.nn.functional.normalize(found.sum(0), dim=0)
        up, down = (told(vectors + sign * step)[number] for sign in (1, -1))
        assert (found.sum(0) @ step).item() == pytest.approx((up - down) / 2, rel=0.05)


@pytest.mark.parametrize("counts", [(0, 3), (3, 0)])
def test_without_clips_there_is_no_direction(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"expected some of both"):
        sensitivity.direction(*(torch.ones(count, 4) for count in counts))
