"""The table of special tokens, against the ids of the published vocabulary of 151,643 ranks."""

from __future__ import annotations

import re

import pytest

from qwenaudio_np import special_tokens
from qwenaudio_np.errors import UsageError
from qwenaudio_np.special_tokens import AUDIO_FAMILY, SPECIAL_TOKENS, TAG_SHAPE, TEXT_TOKENS, timestamp_token

RANKS = 151_643

# Written down from the published model, not computed: name within <|...|> and id.
PUBLISHED = """
endoftext 151643 im_start 151644 im_end 151645 extra_0 151646 extra_1 151647 extra_100 151746 extra_204 151850
startoftranscript 151852 startofanalysis 151853 translate 151854 transcribe 151855 caption 151856 keyword 151857
unknown 151858 en 151859 zh 151860 de 151861 es 151862 ko 151863 fr 151864 ja 151865 it 151866
zh_tr 151867 notimestamps 151868 sil 151869 timestamps 151870 0.00 151871 0.01 151872 2.33 152104 9.99 152870 10.00 152871
29.99 154870 30.00 154871 caption_audiocaps 154872 caption_clotho 154873 audioset_ontology 154874 caption_plain 154875 itn 154876
wo_itn 154877 startofentityvalue 154878 endofentityvalue 154879 startofentitytype 154880 endofentitytype 154881
named_entity_recognition 154882 audio_grounding 154883 startofword 154884 endofword 154885 delim 154886
emotion_recognition 154887 music_description 154888 note_analysis 154889 pitch 154890 midi_pitch_0 154891 midi_pitch_60 154951
midi_pitch_127 155018 velocity 155019 midi_velocity_0 155020 midi_velocity_127 155147 sonic 155148 instrument 155149
speaker_meta 155150 song_meta 155151 question 155152 answer 155153 choice 155154 scene 155155 event 155156
vocal_classification 155157 speech_understanding 155158 scenario 155159 action 155160 entities 155161 speech_edit 155162
"""
OTHER_FORMS = {"[[[AUDIO:modality]]]": 151851, "<audio>": 155163, "</audio>": 155164}


def test_every_published_id() -> None:
    expected = {f"<|{name}|>": int(number) for name, number in re.findall(r"(\S+)\s+(\d+)\s", PUBLISHED)} | OTHER_FORMS
    table = {name: RANKS + place for place, name in enumerate(SPECIAL_TOKENS)}
    assert len(expected) == 73 + 3
    assert {name: table.get(name) for name in expected} == expected


def test_the_table_has_3522_different_tokens_and_ends_with_the_audio_end() -> None:
    assert len(SPECIAL_TOKENS) == len(set(SPECIAL_TOKENS)) == 3522
    assert SPECIAL_TOKENS[-1] == "</audio>"


def test_each_timestamp_stands_at_its_hundredth_of_a_second() -> None:
    first = SPECIAL_TOKENS.index("<|0.00|>")
    for hundredths in range(3001):
        assert SPECIAL_TOKENS[first + hundredths] == f"<|{hundredths / 100:.2f}|>" == timestamp_token(hundredths / 100)


def test_text_tokens_and_audio_family_share_out_the_table() -> None:
    """Chat text may contain the audio family; what builds the conversation itself must not be among it."""
    assert len(TEXT_TOKENS) == 3 + 205
    assert len(AUDIO_FAMILY) == 3314
    assert not AUDIO_FAMILY & set(TEXT_TOKENS)
    assert set(TEXT_TOKENS) | AUDIO_FAMILY == set(SPECIAL_TOKENS)
    assert {"[[[AUDIO:modality]]]", "<audio>", "</audio>", "<|transcribe|>", "<|30.00|>"} <= AUDIO_FAMILY


def test_named_tokens() -> None:
    named = {name: getattr(special_tokens, name) for name in special_tokens.__dict__ if name in
             {"ENDOFTEXT", "IM_START", "IM_END", "AUDIO_START", "AUDIO_END", "AUDIO_PLACEHOLDER"}}  # fmt: skip
    assert named == {
        "ENDOFTEXT": "<|endoftext|>", "IM_START": "<|im_start|>", "IM_END": "<|im_end|>",
        "AUDIO_START": "<audio>", "AUDIO_END": "</audio>", "AUDIO_PLACEHOLDER": "[[[AUDIO:modality]]]",
    }  # fmt: skip


def test_the_readmes_wrong_spelling_is_no_token() -> None:
    """The original's README writes `<|startoftranscription|>`; the token is shorter."""
    assert "<|startoftranscript|>" in SPECIAL_TOKENS
    assert "<|startoftranscription|>" not in SPECIAL_TOKENS


@pytest.mark.parametrize(
    ("seconds", "token"),
    [(0, "<|0.00|>"), (-0.0, "<|0.00|>"), (2.33, "<|2.33|>"), (3.256, "<|3.26|>"), (0.004, "<|0.00|>"), (30, "<|30.00|>")],
)
def test_timestamps_are_rounded_to_hundredths(seconds: float, token: str) -> None:
    assert timestamp_token(seconds) == token


@pytest.mark.parametrize("seconds", [-0.01, 30.01, float("nan"), float("inf"), float("-inf")])
def test_there_is_no_timestamp_outside_a_clip(seconds: float) -> None:
    with pytest.raises(UsageError, match="expected a time from 0 to 30"):
        timestamp_token(seconds)


def test_the_shape_finds_every_token_whole_and_nothing_inside_it() -> None:
    """The tokenizer searches for this shape; a token it missed could never be encoded."""
    for name in SPECIAL_TOKENS:
        assert TAG_SHAPE.fullmatch(name), name
        assert [match[0] for match in TAG_SHAPE.finditer("x" + name + name + "<|")] == [name, name]
        assert not any(TAG_SHAPE.match(name, place) for place in range(1, len(name)))
    assert not TAG_SHAPE.search("<| en |> <||> <|en> |en|> <Audio> [[[AUDIO]]]")
