"""One way to walk a folder of audio."""

import os

import pytest

from technogen_jax.audio import audio_folders


def touch(folder, *names, content=b"x"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_hidden_files_and_copies_of_the_system_are_skipped(tmp_path):
    root = tmp_path / ".music"
    touch(root, "a.wav", "b/c.MP3", ".ipynb_checkpoints/a.wav", ".Trash-0/files/a.wav", "b/._c.mp3", "notes.txt")
    touch(root, "__MACOSX/a.wav", "@eaDir/a.wav", "$RECYCLE.BIN/a.wav")
    assert audio_folders.find_audio_files(root) == (["a.wav", os.path.join("b", "c.MP3")], [], [])
    assert audio_folders.find_audio_files(root, [root / "b"]).files == ["a.wav"]


@pytest.mark.skipif(os.name != "posix", reason="links need rights elsewhere")
def test_links_are_followed_once_and_what_cannot_be_opened_is_named(tmp_path):
    touch(tmp_path, "in/a.wav", "elsewhere/b.wav")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.wav").symlink_to("nowhere")
    os.mkfifo(tmp_path / "in" / "pipe.wav")
    os.mkfifo(tmp_path / "in" / "pipe")
    found = audio_folders.find_audio_files(tmp_path / "in")
    assert found.files == ["a.wav", os.path.join("again", "b.wav")]
    assert [name for name, _ in found.unreadable] == ["gone.wav", "pipe.wav"] and not found.passed_over
    assert all(reason.startswith("cannot be read: ") for _, reason in found.unreadable)


def test_what_looks_like_audio_and_is_not_taken_is_named(tmp_path):
    touch(tmp_path, ".song.mp3.icloud", "x.flac.part", "y.wav.crdownload", "z.aax", "p.mid", "q.rx2", "note.doc.part")
    touch(tmp_path, "no extension", "old.wav.bak", content=b"RIFF\0\0\0\0WAVEfmt ")
    touch(tmp_path, "picture.webp", content=b"RIFF\0\0\0\0WEBPVP8 ")
    found = audio_folders.find_audio_files(tmp_path)
    assert not found.files and not found.unreadable
    assert dict(found.passed_over) == {
        ".song.mp3.icloud": "not downloaded from iCloud",
        "no extension": "audio under another extension; rename it to be read",
        "old.wav.bak": "audio under another extension; rename it to be read",
        "p.mid": "notes without sound; render it to wav",
        "q.rx2": "a sampler's format; export it as wav",
        "x.flac.part": "not completely downloaded",
        "y.wav.crdownload": "not completely downloaded",
        "z.aax": "an audiobook protected by DRM",
    }
