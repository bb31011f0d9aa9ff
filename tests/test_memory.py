"""The memory estimate, against hand-worked numbers, and what the system says, against made-up /proc and cgroup files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwenaudio_np.config import parse_config
from qwenaudio_np.errors import ResourceError
from qwenaudio_np.memory import available_bytes, cache_bytes, needed_bytes, require_memory

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = 16_792_444_928  # bytes of the published model in bfloat16

PUBLISHED: dict[str, Any] = {
    "vocab_size": 155_947,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 22_016,
    "audio": {
        **{"n_mels": 80, "n_ctx": 1500, "n_state": 1280, "n_head": 20, "n_layer": 32},
        **{"output_dim": 4096, "audio_start_id": 155_163},
    },
}


def system(tmp_path: Path, files: dict[str, str]) -> Path:
    """A root folder that holds only these files."""
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_cache_of_the_published_model_is_one_mebibyte_a_position() -> None:
    text = parse_config(PUBLISHED).text
    assert cache_bytes(text, 1, 4) == 1 << 20
    assert cache_bytes(text, 8192, 4) == 8 << 30
    assert cache_bytes(text, 100, 8) == 200 << 20


def test_needed_bytes_of_the_published_model() -> None:
    """Weights and cache are exact, the rest an estimate that must be neither forgotten nor larger than they are."""
    config = parse_config(PUBLISHED)
    for positions in (1, 200, 2048, 8192):
        needed = needed_bytes(config, WEIGHTS, positions)
        certain = WEIGHTS + positions * (1 << 20)
        assert certain + 3e8 < needed < certain + 4e9


def test_needed_bytes_grows_with_everything_it_depends_on() -> None:
    config, text_only = parse_config(PUBLISHED), parse_config({**PUBLISHED, "audio": None})
    needed = needed_bytes(config, WEIGHTS, 2048)
    assert needed_bytes(config, WEIGHTS + 1, 2048) == needed + 1
    assert needed_bytes(config, WEIGHTS, 4096) > needed + 2048 * (1 << 20)
    assert needed_bytes(config, WEIGHTS, 2048, np.float64) > needed + 2048 * (1 << 20)
    assert needed_bytes(config, WEIGHTS, 2048, np.float32, np.uint16) == needed - 1024 * (1 << 20), "half of keys and values"
    assert needed_bytes(text_only, WEIGHTS, 1) < needed_bytes(config, WEIGHTS, 1)


def test_only_the_rows_of_a_prompt_are_worked_on_at_once() -> None:
    """A long answer takes keys and values, but no scores of all its positions with each other."""
    config = parse_config(PUBLISHED)
    cache = 8000 * (1 << 20)
    assert needed_bytes(config, 0, 8192, np.float32, np.float32, 192) == needed_bytes(config, 0, 192) + cache
    assert needed_bytes(config, 0, 8192) > needed_bytes(config, 0, 192) + cache + (1 << 30)


def test_require_memory_gives_both_numbers() -> None:
    with pytest.raises(ResourceError, match=r"about 20\.5 GB needed, 12\.0 GB available; close other programs"):
        require_memory(20_500_000_000, 12_000_000_000)
    require_memory(12, 12)
    require_memory(10**15, None)


def test_nothing_known_is_none(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None


def test_free_memory(tmp_path: Path) -> None:
    root = system(tmp_path, {"proc/meminfo": "MemTotal:       24000000 kB\nMemFree:  1 kB\nMemAvailable:    1000 kB\n"})
    assert available_bytes(root) == 1_024_000


GROUP_V2 = {
    "proc/meminfo": "MemAvailable:    1000000 kB\n",
    "proc/self/cgroup": "0::/outer/inner\n",
    "sys/fs/cgroup/outer/inner/memory.max": "max\n",
    "sys/fs/cgroup/outer/inner/memory.current": "5000\n",
    "sys/fs/cgroup/outer/memory.max": "90000\n",
    "sys/fs/cgroup/outer/memory.current": "50000\n",
    "sys/fs/cgroup/outer/memory.stat": "anon 20000\ninactive_file 10000\nactive_file 3000\nslab 1\n",
}


def test_control_group_2_limit_of_a_parent(tmp_path: Path) -> None:
    """90000 - (50000 - 13000 of cached files) = 53000."""
    assert available_bytes(system(tmp_path, GROUP_V2)) == 53_000


def test_mapped_files_take_from_free_memory_and_control_groups(tmp_path: Path) -> None:
    root = system(tmp_path, GROUP_V2)
    assert available_bytes(root, mapped=3_000) == 50_000 and available_bytes(root, mapped=60_000) == 0


def test_mapped_files_are_in_the_address_space_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwenaudio_np.memory._address_space", lambda system: iter([40_000]))
    assert available_bytes(system(tmp_path, GROUP_V2), mapped=3_000) == 40_000


def test_smallest_source_counts(tmp_path: Path) -> None:
    files = {**GROUP_V2, "proc/meminfo": "MemAvailable:    3 kB\n"}
    assert available_bytes(system(tmp_path, files)) == 3072


def test_control_group_in_a_container(tmp_path: Path) -> None:
    """The path is the host's and does not exist inside; the limit lies at the mount itself."""
    files = {
        "proc/self/cgroup": "0::/docker/abc\n",
        "sys/fs/cgroup/memory.max": "1000\n",
        "sys/fs/cgroup/memory.current": "400\n",
    }
    assert available_bytes(system(tmp_path, files)) == 600


def test_control_group_1(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "12:cpu,cpuacct:/\n4:memory:/box\n1:name=systemd:/\n",
        "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "10000\n",
        "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "12000\n",
        "sys/fs/cgroup/memory/box/memory.stat": "inactive_file 1\ntotal_inactive_file 4000\ntotal_active_file 1000\n",
    }
    assert available_bytes(system(tmp_path, files)) == 3000


def test_over_the_limit_is_zero_not_negative(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "10\n", "sys/fs/cgroup/memory.current": "50\n"}
    assert available_bytes(system(tmp_path, files)) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the size of the address space in /proc")
def test_address_space_limit() -> None:
    code = """
import resource
from qwenaudio_np.memory import available_bytes
limit = 1 << 40
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from pathlib import Path
from qwenaudio_np.memory import _address_space
(room,) = _address_space(Path("/"))
print(limit - room)
resource.setrlimit(resource.RLIMIT_AS, (1 << 33, limit))
print(available_bytes())
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    mapped, available = map(int, done.stdout.split())
    assert 10e6 < mapped < 20e9
    assert 0 <= available < 1 << 33


@pytest.mark.skipif(sys.platform != "linux", reason="other systems report nothing")
def test_this_machine_reports_something() -> None:
    available = available_bytes()
    assert available is not None and 1e6 < available < 1e14
