from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.errors import RecordingError
from loadtest.samples import MAGIC, MOST_STRINGS, Mark, Phase, Recording, Sample, Writer

times = st.floats(min_value=0, max_value=4e9, allow_nan=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
samples = st.builds(
    Sample,
    start=times,
    elapsed=st.floats(min_value=0, max_value=1e4),
    kind=st.sampled_from(["GET", "POST", "JOB", "EXCEPTION"]),
    name=texts,
    status=st.integers(0, 599),
    error=texts,
    trace_id=st.sampled_from(["", "0123456789abcdef0123456789abcdef", "f" * 32]),
)


@given(written=st.lists(samples, max_size=20), cut=st.integers(0, 60))
def test_what_was_written_is_read_and_a_cut_record_waits_for_its_rest(
    tmp_path_factory: pytest.TempPathFactory, written: list[Sample], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("recording")
    writer = Writer(folder / "samples-1.bin")
    for sample in written:
        writer.sample(sample)
    writer.mark(Mark(12.5, Phase.RAMPED, 7, 0.25))
    writer.flush()
    whole = (folder / "samples-1.bin").read_bytes()
    (folder / "samples-1.bin").write_bytes(whole[: len(whole) - cut])

    recording = Recording(folder)
    recording.read()
    assert recording.samples == written[: len(recording.samples)]
    with (folder / "samples-1.bin").open("ab") as file:
        file.write(whole[len(whole) - cut :] if cut else b"")
    recording.read()
    recording.close()
    assert recording.samples == written
    assert recording.marks == [Mark(12.5, Phase.RAMPED, 7, 0.25)]


def test_several_processes_write_one_recording(tmp_path: Path) -> None:
    for process in (1, 2):
        writer = Writer(tmp_path / f"samples-{process}.bin")
        writer.mark(Mark(10.0 + process, Phase.STARTED, 0, 0.0))
        writer.sample(Sample(11.0, 0.1, "GET", f"/{process}", 200, "", ""))
        writer.flush()
    recording = Recording(tmp_path)
    recording.read()
    recording.close()
    assert {sample.name for sample in recording.samples} == {"/1", "/2"}
    assert recording.time_of(Phase.STARTED) == 11.0
    assert recording.time_of(Phase.STOPPED) is None


def test_error_texts_without_end_are_pooled(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "samples-1.bin")
    for number in range(MOST_STRINGS + 50):
        writer.sample(Sample(1.0, 0.1, "GET", "/", 500, f"fault {number}", ""))
    writer.flush()
    recording = Recording(tmp_path)
    recording.read()
    recording.close()
    assert len(recording.samples) == MOST_STRINGS + 50
    assert len({sample.error for sample in recording.samples}) < MOST_STRINGS
    assert "too many" in recording.samples[-1].error


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04 something else", "not a sample file"),
        (MAGIC + b"Z" * 60, "damaged: no record begins with"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "samples-9.bin").write_bytes(content)
    recording = Recording(tmp_path)
    with pytest.raises(RecordingError, match=said):
        recording.read()
    recording.close()


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    Writer(tmp_path / "samples-1.bin")
    with pytest.raises(FileExistsError):
        Writer(tmp_path / "samples-1.bin")
