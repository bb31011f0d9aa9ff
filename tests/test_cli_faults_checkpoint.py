"""Everything that can be wrong with what a user gives: one line on stderr, the right status, nothing on stdout, nothing new on disk."""

from __future__ import annotations

import base64
import json
import os
import resource
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from safetensors.numpy import load_file, save_file

from qwenaudio_np import embedded
from tests.cli_tools import (
    CLIP,
    GOLDEN,
    Run,
    assert_refused,
    copy_of_tiny,
    files_of,
    nothing_written,
    process,
    request,
    runner,
    shell,
    tracing,
)
from tests.make_checkpoint import make_checkpoint


@pytest.fixture()
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(capsys)


# --- words -----------------------------------------------------------------------------------------------------------

WRONG_WORDS = {
    "nothing to do": (request(), "nothing to do", "--prompt"),
    "unknown verb": (["speak"], "'speak'", "run, trace, info, bench, convert, verify, download, random-checkpoint"),
    "a file for a verb": (["speech.wav"], "'speech.wav'", "--input"),
    "unknown option": (request("-p", "x", "--loud"), "--loud", "--help"),
    "abbreviated option": (request("-p", "x", "--temp", "1"), "--temp"),
    "stray word": (request("-p", "x", "--json", "y"), "unrecognized arguments: y"),
    "option without value": (["--prompt"], "expected one argument"),
    "control characters": (["-p", "x", "a\x1b[31m\nb\udcff"], "a\\x1b[31m\\nb\\udcff"),
    "unknown backend": (["-p", "x", "--backend", "gpu"], "'gpu'", "reference", "numba"),
    "unknown format": (["-p", "x", "--format", "xml"], "'xml'", "base", "chat"),
    "no tokens": (request("-p", "x", tokens=0), "'0'", "at least 1"),
    "half a token": (request("-p", "x", "-n", "2.5"), "'2.5'", "whole number"),
    "negative least tokens": (request("-p", "x", "--min-new-tokens", "-1"), "'-1'"),
    "temperature in words": (request("-p", "x", "--temperature", "hot"), "'hot'", "--temperature"),
    "temperature below 0": (request("-p", "x", "--temperature", "-1"), "--temperature", "-1"),
    "temperature NaN": (request("-p", "x", "--temperature", "nan"), "--temperature", "nan"),
    "temperature infinite": (request("-p", "x", "--temperature", "inf"), "--temperature", "inf"),
    "top-p above 1": (request("-p", "x", "--temperature", "1", "--top-p", "1.5"), "--top-p", "1.5", "from 0 to 1"),
    "top-p NaN": (request("-p", "x", "--top-p", "nan"), "--top-p", "nan"),
    "top-k below 0": (request("-p", "x", "--top-k", "-1"), "--top-k", "'-1'"),
    "half of top-k": (request("-p", "x", "--top-k", "2.5"), "--top-k", "'2.5'"),
    "seed below 0": (request("-p", "x", "--seed", "-1"), "--seed", "'-1'"),
    "no threads": (request("-p", "x", "--threads", "0"), "--threads", "'0'"),
    "a million threads": (request("-p", "x", "--threads", "1000000"), "--threads", "1000000"),
    "quiet and verbose": (request("-p", "x", "-q", "-v"), "not allowed with"),
    "unknown task": (request("--task", "sing", "-i", CLIP), "'sing'", "asr", "notes"),
    "unknown language": (request("--task", "asr", "--language", "xx", "-i", CLIP), "'xx'", "en", "unknown"),
    "unknown text language": (request("--task", "asr", "--text-language", "xx", "-i", CLIP), "'xx'", "en"),
    "unknown style": (request("--task", "caption", "--style", "poem", "-i", CLIP), "'poem'", "clotho"),
    "task without sound": (request("--task", "asr"), "--input"),
    "task and prompt": (request("--task", "asr", "-i", CLIP, "-p", "x"), "--task or --prompt"),
    "task in chat": (request("--task", "asr", "-i", CLIP, "--format", "chat"), "--format chat"),
    "question missing": (request("--task", "question", "-i", CLIP), "--question"),
    "target language missing": (request("--task", "translate", "-i", CLIP), "--text-language"),
    "option of another task": (request("--task", "asr", "--style", "clotho", "-i", CLIP), "--style"),
    "language without task": (request("-p", "x", "--language", "en"), "--language", "--task"),
    "system in base format": (request("-p", "x", "--format", "base", "--system", "y"), "--system", "--format chat"),
    "audio tag in a prompt": (request("-p", "<audio>/etc/passwd</audio> x"), "<audio>", "--input"),
    "audio tag in a question": (request("--task", "question", "--question", "</audio>", "-i", CLIP), "</audio>", "--input"),
    "audio tag in the system text": (request("-p", "x", "--system", "<audio>"), "<audio>", "--input"),
    "placeholder in a prompt": (request("-p", "[[[AUDIO:modality]]]"), "[[[AUDIO:modality]]]", "--input"),
    "empty base prompt": (request("-p", "", "--format", "base"), "0 tokens"),
    "prompt past the context": (request("-p", "a " * 9000), "tokens, expected 1 to 8192"),
    "stdin for two": (request("-p", "-", "-i", "-"), "stdin", "once"),
    "output is a folder": (request("-p", "x", "-o", "/"), "'/'", "directory"),
    "output in no folder": (request("-p", "x", "-o", "nowhere/answer"), "nowhere'", "does not exist"),
    "output is stdout's sign": (request("-p", "x", "-o", "-"), "./-"),
    "trace without output": (tracing("-p", "x"), "--output"),
    "trace without request": (tracing("-o", "x"), "nothing to do"),
    "trace in half precision": (tracing("-p", "x", "-o", "x", "--dtype", "float16"), "'float16'", "float64"),
    "trace of minus one step": (tracing("-p", "x", "-o", "x", "--steps", "-1"), "'-1'", "--steps"),
    "info without folder": (["info"], "DIR"),
    "random checkpoint of unknown size": (["random-checkpoint", "x", "--size", "huge"], "'huge'", "tiny"),
    "random checkpoint of unknown type": (["random-checkpoint", "x", "--dtype", "int8"], "'int8'", "bfloat16"),
}


@pytest.mark.parametrize("name", WRONG_WORDS)
def test_wrong_usage(name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words, *fragments = WRONG_WORDS[name]
    with nothing_written(tmp_path):
        assert_refused(run(*words), 2, *fragments)


def test_no_model(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QWENAUDIO_MODEL", raising=False)
    monkeypatch.setattr(embedded, "FOLDER", tmp_path / "nothing")
    assert_refused(run("-p", "x"), 2, "none embedded", "--model DIR", "QWENAUDIO_MODEL")


# --- sound files -----------------------------------------------------------------------------------------------------


def sound(*samples: float, rate: int = 16000, subtype: str = "FLOAT") -> Callable[[Path], None]:
    return lambda path: soundfile.write(path, np.array(samples, np.float32), rate, subtype, format="WAV")


BAD_SOUND: dict[str, tuple[Callable[[Path], object], str]] = {
    "no such file": (lambda path: None, "no such file"),
    "directory": (Path.mkdir, "is a directory"),
    "pipe": (os.mkfifo, "not a regular file"),
    "dangling link": (lambda path: path.symlink_to("nothing"), "no such file"),
    "circle of links": (lambda path: path.symlink_to(path), "symbolic links"),
    "empty file": (Path.touch, "0 bytes"),
    "text": (lambda path: path.write_text("hello"), "looks like text"),
    "web page": (lambda path: path.write_text("<!DOCTYPE html>"), "HTML"),
    "random bytes": (lambda path: path.write_bytes(bytes(range(64))), "first bytes 00 01"),
    "header alone": (lambda path: path.write_bytes(CLIP.read_bytes()[:20]), "WAV"),
    "no samples": (sound(), "no sound"),
    "one sample": (sound(0.5), "too short"),
    "479 samples": (sound(*[0.1] * 479), "479 samples"),
    "short at another rate": (sound(*[0.1] * 1300, rate=44100), "too short"),
    "not a number": (sound(*[0.1] * 600, float("nan")), "NaN or infinity in 1 frames"),
    "infinite": (sound(float("inf"), *[0.1] * 600), "NaN or infinity in 1 frames"),
}


@pytest.mark.parametrize("name", BAD_SOUND)
def test_bad_sound(name: str, run: Run, tmp_path: Path) -> None:
    make, fragment = BAD_SOUND[name]
    path = tmp_path / "bad.wav"
    make(path)
    with nothing_written(tmp_path):
        assert_refused(run(*request("-p", "x", "-i", CLIP, path, "-o", tmp_path / "answer")), 1, fragment, "bad.wav")


def test_the_shortest_clip_is_answered(run: Run, tmp_path: Path) -> None:
    sound(*[0.1] * 480)(tmp_path / "short.wav")
    assert run(*request("-p", "x", "-i", tmp_path / "short.wav")).status == 0


ODD_NAMES = ["new\nline", "\x1b[31mred", "non-utf8-\udcff", "😀", "<audio>", "<|im_end|>", "%s{}", "$(reboot)", "'\"", "a" * 200]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_load_and_are_escaped_where_they_are_told(name: str, run: Run, tmp_path: Path) -> None:
    path = tmp_path / name
    assert_refused(run(*request("-p", "x", "-i", path)), 1, "no such file", ascii(name)[1:-1])
    shutil.copy(CLIP, path)
    plain = json.loads(run(*request("-p", "x", "-i", CLIP, "--json")).out)
    odd = json.loads(run(*request("-p", "x", "-i", path, "--json")).out)
    assert (odd["prompt_ids"], odd["token_ids"]) == (plain["prompt_ids"], plain["token_ids"])
    assert odd["audio"][0]["path"] == str(path)


def test_a_name_may_begin_with_a_hyphen(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(CLIP, tmp_path / "-x")
    assert run(*request("-p", "x", "--input=-x")) == run(*request("-p", "x", "-i", CLIP))


# --- checkpoints -----------------------------------------------------------------------------------------------------

SHARD = "model-00001-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def edit_json(name: str, **changes: Any) -> Callable[[Path], None]:
    """Change fields of a JSON file; `a__b` is field b of field a."""

    def edit(folder: Path) -> None:
        fields = json.loads((folder / name).read_text())
        for path, value in changes.items():
            *outer, last = path.split("__")
            inner = fields
            for key in outer:
                inner = inner[key]
            inner[last] = value
        (folder / name).write_text(json.dumps(fields))

    return edit


def edit_index(tensor: str, file: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        index["weight_map"][tensor] = file
        (folder / INDEX).write_text(json.dumps(index))

    return edit


def edit_tensors(change: Callable[[dict[str, np.ndarray]], object], listed: str | None = None) -> Callable[[Path], None]:
    """Change the tensors of the first shard; `listed` is added to the index."""

    def edit(folder: Path) -> None:
        tensors = load_file(folder / SHARD)
        change(tensors)
        save_file(tensors, folder / SHARD)
        if listed:
            edit_index(listed, SHARD)(folder)

    return edit


def edit_vocabulary(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "qwen.tiktoken"
        path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))

    return edit


def write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def cut(name: str, end: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:end])


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


BIAS = "transformer.audio.blocks.0.attn.query.bias"
BYTE_A = base64.b64encode(b"a")

BROKEN_CHECKPOINT: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no folder": (shutil.rmtree, ("config.json", "no such file")),
    "no config": (remove("config.json"), ("config.json", "no such file")),
    "config is no JSON": (write("config.json", b"{"), ("config.json", "not valid JSON")),
    "config is a list": (write("config.json", b"[]"), ("config.json", "list", "object")),
    "config is a web page": (write("config.json", b"<!DOCTYPE html>"), ("config.json", "HTML")),
    "config is binary": (write("config.json", b"\xff\xfe"), ("config.json", "UTF-8")),
    "config nests without end": (write("config.json", b"[" * 100_000), ("config.json", "deeply")),
    "config of another model": (edit_json("config.json", model_type="llama"), ("model_type", "'llama'", "qwen")),
    "config with no layers": (edit_json("config.json", num_hidden_layers=0), ("num_hidden_layers is 0,",)),
    "config with a billion layers": (edit_json("config.json", num_hidden_layers=10**9), ("num_hidden_layers",)),
    "heads that do not divide": (edit_json("config.json", num_attention_heads=5), ("hidden_size 64", "num_attention_heads 5")),
    "generation config is no JSON": (write("generation_config.json", b"x"), ("generation_config.json", "not valid JSON")),
    "no vocabulary": (remove("qwen.tiktoken"), ("qwen.tiktoken", "no such file")),
    "bad line in the vocabulary": (edit_vocabulary(lambda lines: [*lines[:7], b"!!! x\n", *lines[8:]]), ("qwen.tiktoken", "8")),
    "gap in the vocabulary": (edit_vocabulary(lambda lines: [*lines[:500], *lines[501:]]), ("qwen.tiktoken", "500")),
    "byte missing": (
        edit_vocabulary(lambda lines: [b"YWFhYWFhYWFh" + line[4:] if line.startswith(BYTE_A + b" ") else line for line in lines]),
        ("qwen.tiktoken", "byte"),
    ),
    "vocabulary cut": (edit_vocabulary(lambda lines: lines[:900]), ("audio_start_id 4520", "900 ranks", "4420")),
    "audio_start_id that disagrees": (edit_json("config.json", audio__audio_start_id=4519), ("audio_start_id 4519", "1000 ranks", "4520")),
    "no weights": (lambda folder: [path.unlink() for path in folder.glob("model*")], ("neither", INDEX)),
    "index is no JSON": (write(INDEX, b"{"), (INDEX, "not valid JSON")),
    "index without map": (write(INDEX, b"{}"), (INDEX, "weight_map")),
    "index points up": (edit_index("lm_head.weight", "../x.safetensors"), (INDEX, "'../x.safetensors'", "plain file name")),
    "index points to a device": (edit_index("lm_head.weight", "/dev/zero"), (INDEX, "'/dev/zero'")),
    "index points to a pickle": (edit_index("lm_head.weight", "model.bin"), (INDEX, "'model.bin'")),
    "index names a tensor that is not there": (edit_index("transformer.h.9.ln_1.weight", SHARD), ("transformer.h.9.ln_1.weight",)),
    "shard missing": (remove(SHARD), (SHARD, "fetch")),
    "shard empty": (write(SHARD, b""), (SHARD, "0 bytes")),
    "shard cut in its header": (cut(SHARD, 100), (SHARD,)),
    "shard cut in its data": (cut(SHARD, -1), (SHARD,)),
    "shard is a git-lfs pointer": (write(SHARD, b"version https://git-lfs.github.com/spec/v1\n"), (SHARD, "git-lfs")),
    "shard is a pipe": (lambda folder: [(folder / SHARD).unlink(), os.mkfifo(folder / SHARD)], (SHARD, "regular file")),
    "shard with a huge header": (write(SHARD, struct.pack("<Q", 1 << 62) + b"{}"), (SHARD,)),
    "tensor missing": (edit_tensors(lambda tensors: tensors.pop(BIAS)), (BIAS,)),
    "tensor too many": (edit_tensors(lambda tensors: tensors.update(more=np.zeros(3, np.float32)), "more"), ("'more'", "not expected")),
    "tensor of another shape": (edit_tensors(lambda tensors: tensors.update({BIAS: np.zeros(7, np.float32)})), (BIAS, "[7]", "[48]")),
    "tensor of whole numbers": (edit_tensors(lambda tensors: tensors.update({BIAS: np.zeros(48, np.int32)})), (BIAS, "I32", "F32")),
    "config of another size": (edit_json("config.json", intermediate_size=386), ("mlp", "config.json")),
    "weights that are not numbers": (
        edit_tensors(lambda tensors: tensors.update({BIAS: np.full(48, np.nan, np.float32)})),
        ("non-finite",),
    ),
}


@pytest.mark.parametrize("name", BROKEN_CHECKPOINT)
def test_broken_checkpoint(name: str, run: Run, tmp_path: Path) -> None:
    folder = copy_of_tiny(tmp_path)
    break_it, fragments = BROKEN_CHECKPOINT[name]
    break_it(folder)
    with nothing_written(tmp_path):
        assert_refused(run(*request("-p", "x", "-i", CLIP, "-o", tmp_path / "answer", model=folder)), 1, *fragments)


@pytest.mark.parametrize("name", ["no folder", "config is no JSON", "shard missing", "shard cut in its header", "index points up"])
def test_info_refuses_them_too(name: str, run: Run, tmp_path: Path) -> None:
    folder = copy_of_tiny(tmp_path)
    break_it, fragments = BROKEN_CHECKPOINT[name]
    break_it(folder)
    assert_refused(run("info", folder), 1, *fragments)


@pytest.fixture(scope="module")
def text_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("text"), audio={"none": True}, vocab_size=500)


def test_a_text_only_checkpoint_answers_text_and_refuses_sound(text_only: Path, run: Run) -> None:
    assert run(*request("-p", "hello", model=text_only)).status == 0
    assert "none (text only)" in run("info", text_only).out
    assert json.loads(run("info", text_only, "--json").out)["encoder"] is None
    assert_refused(run(*request("-p", "hello", "-i", CLIP, model=text_only)), 2, "text-only", "--input")
    assert_refused(run(*request("--task", "asr", "-i", CLIP, model=text_only)), 2, "text-only")


# --- lists: history, ids ---------------------------------------------------------------------------------------------

TURN = {"query": "a", "audio": [], "answer": "b"}
BAD_HISTORY: dict[str, tuple[str, int, str]] = {
    "no JSON": ("x", 1, "not valid JSON"),
    "nothing": ("\n", 1, "not valid JSON"),
    "more than a list": ('[], "list": 3', 1, "not valid JSON"),
    "a list and more": ('[], "x": 3', 1, "not valid JSON"),
    "an object": ("{}", 1, "list"),
    "a turn in words": ('["hello"]', 1, "turn 1"),
    "a turn without answer": ('[{"query": "a"}]', 1, "turn 1"),
    "a turn with something else": (json.dumps([TURN, {**TURN, "sound": []}]), 1, "turn 2"),
    "audio that is no list": (json.dumps([{**TURN, "audio": "a.wav"}]), 1, "turn 1"),
    "audio that is not there": (json.dumps([{**TURN, "audio": ["nowhere.wav"]}]), 1, "nowhere.wav"),
    "an audio tag": (json.dumps([{**TURN, "query": "<audio>"}]), 2, "<audio>"),
}


@pytest.mark.parametrize("name", BAD_HISTORY)
def test_bad_history(name: str, run: Run, tmp_path: Path) -> None:
    text, status, fragment = BAD_HISTORY[name]
    (tmp_path / "history.json").write_text(text)
    with nothing_written(tmp_path):
        assert_refused(run(*request("-p", "x", "--history", tmp_path / "history.json", "-o", tmp_path / "answer")), status, fragment)


START, PLACEHOLDER, END = 4520, 1208, 4521
SPAN = [START, *[PLACEHOLDER] * 13, END]
BAD_IDS: dict[str, tuple[str, list[Path], int, tuple[str, ...]]] = {
    "no list": ('{"ids": [1]}', [], 1, ("list",)),
    "true": ("[1, true]", [], 1, ("item 1", "'True'")),
    "a fraction": ("[1.0]", [], 1, ("item 0", "'1.0'")),
    "below zero": ("[-1]", [], 1, ("item 0", "'-1'")),
    "beyond any integer": ("[99999999999999999999]", [], 1, ("item 0",)),
    "no ids": ("[]", [], 2, ("0 tokens",)),
    "past the vocabulary": ("[4544]", [], 2, ("4543", "4544")),
    "more clips than spans": (json.dumps([*SPAN, 1]), [CLIP, CLIP], 1, ("1 audio spans", "2 clips")),
    "more spans than clips": (json.dumps([*SPAN, *SPAN, 1]), [CLIP], 1, ("2 audio spans", "1 clips")),
    "a span of another length": (json.dumps([START, PLACEHOLDER, END, 1]), [CLIP], 1, ("3 positions", "15")),
    "a span without end": (json.dumps([START, 1]), [CLIP], 1, ("no </audio>",)),
    "an end without span": (json.dumps([1, END]), [CLIP], 1, ("position 1",)),
    "past the context": (json.dumps([1] * 8193), [], 2, ("8193 tokens", "8192")),
}


@pytest.mark.parametrize("name", BAD_IDS)
def test_bad_ids(name: str, run: Run, tmp_path: Path) -> None:
    text, clips, status, fragments = BAD_IDS[name]
    (tmp_path / "ids.json").write_text(text)
    sounds = ["-i", *clips] if clips else []
    with nothing_written(tmp_path):
        assert_refused(run(*tracing("--ids", tmp_path / "ids.json", *sounds, "-o", tmp_path / "trace")), status, *fragments)


def test_ids_are_a_whole_prompt(run: Run, tmp_path: Path) -> None:
    (tmp_path / "ids.json").write_text("[1]")
    for more in (["-p", "x"], ["--task", "asr", "-i", CLIP], ["--system", "x"]):
        assert_refused(run(*tracing("--ids", tmp_path / "ids.json", "-o", tmp_path / "trace", *more)), 2, "ids")


# --- the machine -----------------------------------------------------------------------------------------------------


def test_memory_is_estimated_before_loading(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwenaudio_np.checkpoint.available_bytes", lambda: 123_000_000)
    assert_refused(run(*request("-p", "x")), 1, "not enough memory", "0.4 GB needed", "0.1 GB available", "--force")
    assert run(*request("-p", "x", "--force")).status == 0


@pytest.mark.skipif(sys.platform != "linux", reason="address space limits differ elsewhere")
@pytest.mark.parametrize("megabytes", [60, 300])
def test_a_limit_of_the_address_space_is_an_error(megabytes: int) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    assert_refused(process(request("-p", "x", "--threads", "1"), preexec_fn=limit), 1, "not enough memory")


def test_out_of_memory_in_the_middle(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("qwenaudio_np.model.QwenAudio.prefill", fail)
    assert_refused(run(*request("-p", "x")), 1, "out of memory")


def test_a_defect_is_one_line_and_debug_shows_it_all(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("qwenaudio_np.model.QwenAudio.prefill", fail)
    outcome = run(*request("-p", "x"))
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err == "error: internal: RuntimeError: two\\nlines; please report it, with the output of --debug\n"
    assert run(*request("-p", "x", "--debug")).err.startswith("Traceback ")


@pytest.mark.parametrize("words", [request("-p", "x", "-n", "1"), tracing("-p", "x")], ids=["run", "trace"])
def test_a_full_disk_leaves_the_old_file(words: list[str], tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))

    with nothing_written(tmp_path):
        outcome = process([*words, "-o", str(target)], env=None, preexec_fn=limit)
        assert_refused(outcome, 1, "cannot write", "target", "file too large")


def test_a_device_takes_text_but_no_trace(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert_refused(run(*tracing("-p", "x", "-o", tmp_path / "pipe")), 2, "not a regular file")
    assert (tmp_path / "pipe").is_fifo()
    outcome = shell(f'cat "{tmp_path}/pipe" & "$@" -o "{tmp_path}/pipe" && wait', *request("-p", "x"))
    assert outcome == run(*request("-p", "x")) and sorted(files_of(tmp_path)) == ["pipe"]


def test_output_never_replaces_what_is_read(run: Run, tmp_path: Path) -> None:
    folder, clip = copy_of_tiny(tmp_path), tmp_path / "clip.wav"
    shutil.copy(CLIP, clip)
    (tmp_path / "link.wav").symlink_to(clip)
    with nothing_written(tmp_path):
        for target in (clip, tmp_path / "link.wav", folder / "config.json", folder / SHARD):
            assert_refused(run(*request("-p", "x", "-i", clip, "-o", target, model=folder)), 2, "would replace", target.name)


def test_golden_data_is_still_there() -> None:
    assert CLIP.is_file() and len(list(GOLDEN.glob("*/cases/*"))) > 10
