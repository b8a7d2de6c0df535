"""Files that people have, well-formed and not, against what they hold."""

import os
import struct

import av
import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr

from technogen_jax.audio import audio_files, audio_folders, containers

RATE = 44100


def music(seconds=3.0, rate=RATE, channels=2, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * hz * t + phase) for hz, phase in rng.uniform((50, 0), (2000, 6), (4, 2)))
    kicks = np.exp(-((t * 2.3) % 1) * 9) * rng.standard_normal(len(t))
    mono = 0.1 * tones + 0.1 * kicks
    return np.stack([mono * gain for gain in np.linspace(1, 0.5, channels)], axis=1).astype(np.float32)


def encode_av(path, samples, rate, codec, container, video=False):
    """Writes what libsndfile cannot."""
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout="stereo", bit_rate=256_000)
        if video:
            picture = file.add_stream("mpeg4", rate=25, width=64, height=64, pix_fmt="yuv420p")
            for _ in range(25):
                frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                file.mux(picture.encode(frame))
            file.mux(picture.encode(None))
        if not stream.codec_context.is_open:
            stream.codec_context.open()
        size = stream.codec_context.frame_size or 1024
        fit = av.AudioResampler(stream.codec_context.format.name, "stereo", rate, frame_size=size)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout="stereo")
        frame.sample_rate = rate
        for piece in [*fit.resample(frame), *fit.resample(None), None]:
            file.mux(stream.encode(piece))


def assert_same_music(got, want, longest_shift=3000):
    """The same but for a lossy coder's noise, delay and padding."""
    start = got[: 20000 + longest_shift, 0]
    power = scipy.signal.oaconvolve(start**2, np.ones(20000), "valid")
    lag = np.argmin(power - 2 * scipy.signal.correlate(start, want[:20000, 0], "valid"))
    length = min(len(got) - lag, len(want))
    assert length > len(want) - longest_shift
    error = got[lag : lag + length] - want[:length]
    assert np.sqrt(np.mean(error**2)) < 0.2 * np.sqrt(np.mean(want**2))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff"])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_formats_preserve_every_16_bit_value(tmp_path, suffix, channels):
    pcm = np.arange(-32768, 32768, dtype=np.int16).reshape(-1, channels)
    audio_files.write(tmp_path / f"a{suffix}", audio_files.from_int16(pcm), 8000)
    got, rate = audio_files.read(tmp_path / f"a{suffix}")
    assert rate == 8000 and got.dtype == np.float32
    np.testing.assert_array_equal(audio_files.to_int16(got), pcm)
    assert os.listdir(tmp_path) == [f"a{suffix}"]


@pytest.mark.parametrize("suffix,rate", [(".mp3", RATE), (".ogg", RATE), (".opus", 48000), (".mp3", 8000)])
def test_lossy_formats_preserve_the_music(tmp_path, suffix, rate):
    want = music(rate=rate)
    audio_files.write(tmp_path / f"a{suffix}", want, rate)
    got, got_rate = audio_files.read(tmp_path / f"a{suffix}")
    assert got_rate == rate and len(got) == len(want)
    assert_same_music(got, want)


@pytest.mark.parametrize("codec,container", [("aac", "ipod"), ("aac", "adts"), ("aac", "mp4"), ("alac", "ipod")])
def test_formats_of_ffmpeg_are_decoded(tmp_path, codec, container):
    want = music()
    encode_av(tmp_path / "a.m4a", want, RATE, codec, container, video=container == "mp4")
    got, rate = audio_files.read(tmp_path / "a.m4a")
    assert rate == RATE
    assert_same_music(got, want)
    with audio_files.open_stream(tmp_path / "a.m4a", block_samples=5000) as stream:
        blocks = list(stream.blocks)
    assert {len(block) for block in blocks[:-1]} == {5000}
    np.testing.assert_array_equal(np.concatenate(blocks), got)


TONES_HZ = (300, 500, 700, 900, 1100, 1300)


def tones(names, seconds=1.5, rate=48000):
    """A tone of its own in each channel; those of `names`, in the order of the layout."""
    t = np.arange(round(seconds * rate)) / rate
    return np.stack([0.3 * np.sin(2 * np.pi * TONES_HZ[name] * t) for name in names], axis=1).astype(np.float32)


def levels(samples, rate=48000):
    """Level of each tone relative to its own, `[tones, C]`."""
    middle = samples[rate // 4 : rate // 4 + rate]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(rate)[:, None], axis=0)) / (rate / 4)
    return spectrum[list(TONES_HZ)] / 0.3


def encode_layout(path, samples, codec, container, layout, rate=48000):
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout, bit_rate=256_000)
        stream.codec_context.open()
        size = stream.codec_context.frame_size or 1024
        fit = av.AudioResampler(stream.codec_context.format.name, layout, rate, frame_size=size)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
        frame.sample_rate = rate
        for piece in [*fit.resample(frame), *fit.resample(None), None]:
            file.mux(stream.encode(piece))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".opus", ".w64", ".ac3", ".m4a", ".mka"])
def test_surround_is_mixed_by_its_layout(tmp_path, suffix):
    """Left has the left channels and the centre, right the right ones, in whatever order the format has them."""
    path, front_left, front_right, centre, low, left, right = tmp_path / f"a{suffix}", 0, 1, 2, 3, 4, 5
    order = (front_left, front_right, centre, low, left, right)
    if suffix in (".ogg", ".opus"):  # Vorbis I specification, 4.3.9
        order = (front_left, centre, front_right, left, right, low)
    if suffix in (".ac3", ".m4a", ".mka"):
        codec, container = {".ac3": ("ac3", "ac3"), ".m4a": ("aac", "ipod"), ".mka": ("pcm_s16le", "matroska")}[suffix]
        encode_layout(path, tones(order), codec, container, "5.1")
    else:
        subtype = dict(format="OGG", subtype="OPUS") if suffix == ".opus" else {}
        with soundfile.SoundFile(path, "w", 48000, 6, **subtype) as file:
            for start in range(0, 72_000, 4096):  # libsndfile's Vorbis encoder has a small stack
                file.write(tones(order)[start : start + 4096])
    with audio_files.open_stream(path) as stream:
        assert stream.channels == 2
        got = levels(np.concatenate(list(stream.blocks)))
    total = 1 + 2 * 0.5**0.5
    want = np.zeros((6, 2))
    want[front_left, 0] = want[front_right, 1] = 1
    want[centre] = want[left, 0] = want[right, 1] = 0.5**0.5
    np.testing.assert_allclose(got, want / total, atol=0.03)
    np.testing.assert_allclose(levels(audio_files.read(path, channels=1)[0])[:, 0], got.mean(1), atol=0.02)


FFMPEG_FORMATS = {
    "a.mka": ("pcm_s16le", "matroska"), "a.mkv": ("aac", "matroska"), "a.mov": ("aac", "mov"), "a.3gp": ("aac", "3gp"),
    "a.ac3": ("ac3", "ac3"), "a.eac3": ("eac3", "eac3"), "a.mpga": ("mp2", "mp2"), "a.weba": ("libopus", "webm"),
    "a.m4r": ("aac", "ipod"), "a.wv": ("wavpack", "wv"), "a.tta": ("tta", "tta"), "a.ts": ("aac", "mpegts"),
    "a.wma": ("wmav2", "asf"), "a.avi": ("pcm_s16le", "avi"), "a.flv": ("aac", "flv"), "a.snd": ("pcm_s16be", "au"),
}  # fmt: skip


@pytest.mark.parametrize("name", FFMPEG_FORMATS)
def test_formats_that_people_have_are_found_and_decoded(tmp_path, name):
    if FFMPEG_FORMATS[name][0] not in av.codecs_available:
        pytest.skip("no encoder")
    encode_layout(tmp_path / name, tones((0, 3)), *FFMPEG_FORMATS[name], "stereo")
    assert audio_folders.find_audio_files(tmp_path).files == [name]
    got, rate = audio_files.read(tmp_path / name)
    assert rate == 48000 and len(got) / rate == pytest.approx(1.5, abs=0.06)
    want = np.zeros((6, 2))
    want[0, 0] = want[3, 1] = 1
    np.testing.assert_allclose(levels(got), want, atol=0.05)


def test_dsd_is_decoded(tmp_path):
    """A DSF file of one bit a sample, from a first-order modulator, in the layout of Sony's specification."""
    rate, error, bits = 2_822_400, 0.0, []
    for value in (0.3 * np.sin(2 * np.pi * 500 * np.arange(rate // 5) / rate)).tolist():
        error += value
        bits.append(error > 0)
        error -= 1 if error > 0 else -1
    packed = np.packbits(bits, bitorder="little")
    packed = packed[: len(packed) // 4096 * 4096].tobytes()
    layout = b"fmt " + struct.pack("<Q9I", 52, 1, 0, 1, 1, rate, 1, len(packed) * 8, 0, 4096) + bytes(4)
    data = b"data" + struct.pack("<Q", 12 + len(packed)) + packed
    (tmp_path / "a.dsf").write_bytes(b"DSD " + struct.pack("<3Q", 28, 28 + len(layout + data), 0) + layout + data)
    got, _ = audio_files.read(tmp_path / "a.dsf", 10_000)
    spectrum = np.abs(np.fft.rfft(got[400:1400, 0] * np.hanning(1000))) ** 2
    assert np.argmax(spectrum) == 50 and spectrum[48:53].sum() > 0.99 * spectrum.sum()


def join(path, *parts):
    path.write_bytes(b"".join(part.read_bytes() for part in parts))


@pytest.mark.parametrize("second", [(48000, 2), (22050, 2), (44100, 1), (24000, 1)])
@pytest.mark.parametrize("suffix", [".mp3", ".aac"])
def test_each_part_of_joined_files_keeps_its_pitch(tmp_path, suffix, second):
    for name, (rate, channels) in {"a": (44100, 2), "b": second}.items():
        tone = np.repeat(tones((1,), 4, rate), channels, axis=1)
        if suffix == ".mp3":
            audio_files.write(tmp_path / f"{name}.mp3", tone, rate)
        else:
            layout = "stereo" if channels == 2 else "mono"
            encode_layout(tmp_path / f"{name}.aac", tone, "aac", "adts", layout, rate)
    join(tmp_path / f"ab{suffix}", tmp_path / f"a{suffix}", tmp_path / f"b{suffix}")
    join(tmp_path / f"ba{suffix}", tmp_path / f"b{suffix}", tmp_path / f"a{suffix}")
    for name, (first_hz, channels) in {"ab": (44100, 2), "ba": second}.items():
        got, rate = audio_files.read(tmp_path / f"{name}{suffix}")
        assert rate == first_hz and got.shape[1] == channels and len(got) / rate == pytest.approx(8, abs=0.3)
        for part in (got[rate : 2 * rate], got[-2 * rate : -rate]):
            spectrum = np.abs(np.fft.rfft(part[:, -1] * np.hanning(rate)))
            assert np.argmax(spectrum) == 500 and spectrum[500] / (rate / 4) == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("suffix", [".ogg", ".opus"])
def test_a_chained_ogg_is_read_to_its_end_or_said_to_change(tmp_path, suffix):
    for name, (rate, channels) in {"a": (48000, 2), "b": (48000, 2), "c": (24000, 1)}.items():
        audio_files.write(tmp_path / f"{name}{suffix}", np.repeat(tones((1,), 2, rate), channels, axis=1), rate)
    for first, second in ("aa", "ab"):
        join(tmp_path / "joined", tmp_path / f"{first}{suffix}", tmp_path / f"{second}{suffix}")
        got, rate = audio_files.read(tmp_path / "joined")
        assert len(got) / rate == pytest.approx(4, abs=0.1)
    join(tmp_path / "joined", tmp_path / f"a{suffix}", tmp_path / f"c{suffix}")
    with pytest.raises(audio_files.AudioError, match="change after 2.0 s"):
        audio_files.read(tmp_path / "joined")


@pytest.mark.parametrize("suffix", [".wav", ".aiff", ".m4a"])
def test_two_files_in_one_are_an_error_where_only_the_first_can_be_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".m4a":
        encode_layout(path, tones((0, 1)), "aac", "ipod", "stereo")
    else:
        audio_files.write(path, tones((0, 1)), 48000)
    join(tmp_path / "joined", path, path)
    with pytest.raises(audio_files.AudioError, match="two files joined into one"):
        audio_files.read(tmp_path / "joined")
    (tmp_path / "tagged").write_bytes(path.read_bytes() + b"TAG" + bytes(125))
    assert len(audio_files.read(tmp_path / "tagged")[0]) == len(audio_files.read(path)[0])


def test_a_wav_file_of_more_than_4_gib_is_read_to_its_end(tmp_path, monkeypatch):
    """With a limit of 64 KiB: the length in the header is modulo the limit, the largest, or none."""
    monkeypatch.setattr(containers, "_WRAP_BYTES", 1 << 16)
    monkeypatch.setattr(containers, "_TRAILER_BYTES", 1 << 10)
    want = audio_files.from_int16(audio_files.to_int16(tones((0, 1))))
    audio_files.write(tmp_path / "a.wav", want, 48000)
    whole = (tmp_path / "a.wav").read_bytes()
    position, length = whole.index(b"data") + 4, len(want) * 4
    for stated in (length % (1 << 16), (1 << 16) - 1, 0, 0x7000):
        for trailer in (b"", b"LIST" + struct.pack("<I", 90) + bytes(90)):
            header = whole[:position] + struct.pack("<I", stated) + whole[position + 4 :] + trailer
            (tmp_path / "b.wav").write_bytes(header)
            got, _ = audio_files.read(tmp_path / "b.wav")
            exact = stated == length % (1 << 16)
            np.testing.assert_array_equal(got[: len(want)], want)
            assert len(got) == len(want) if exact else len(got) <= len(want) + 25
    aiff = bytearray(whole[:0])
    audio_files.write(tmp_path / "a.aiff", want, 48000)
    aiff += (tmp_path / "a.aiff").read_bytes() + bytes(1 << 17)
    (tmp_path / "b.aiff").write_bytes(aiff)
    with pytest.raises(audio_files.AudioError, match="more than the format can state"):
        audio_files.read(tmp_path / "b.aiff")


def mp3_variants():
    """Name -> (bytes from an encoded file and its audio frames alone, how often the music is in them)."""
    cover = np.random.default_rng(1).integers(0, 256, 300_000).astype(np.uint8).tobytes()
    picture = b"APIC" + struct.pack(">I", len(cover) + 14) + b"\0\0\0image/png\0\3\0\0" + cover
    id3v2 = b"ID3\3\0\0" + bytes(len(picture) >> shift & 127 for shift in (21, 14, 7, 0)) + picture
    jpeg_tag = id3v2.replace(b"\xff", b"\xfe")  # a JPEG has no bytes that look like the start of a frame
    id3v1 = b"TAG" + b"Title".ljust(125, b"\0")
    ape = b"APETAGEX" + struct.pack("<IIII8x", 2000, len(cover) + 32, 1, 0xA0000000) + cover
    return {
        "plain": (lambda whole, frames: whole, 1),
        "no_xing": (lambda whole, frames: frames, 1),
        "id3v1": (lambda whole, frames: whole + id3v1, 1),
        "no_xing_id3v1": (lambda whole, frames: frames + id3v1, 1),
        "cover": (lambda whole, frames: id3v2 + whole, 1),
        "no_xing_cover": (lambda whole, frames: id3v2 + frames, 1),
        "no_xing_cover_at_end": (lambda whole, frames: frames + ape, 1),
        "two_tags": (lambda whole, frames: id3v2 + id3v2 + whole, 1),
        "joined_with_covers": (lambda whole, frames: (jpeg_tag + whole + id3v1) * 2, 2),
        "joined": (lambda whole, frames: whole + whole, 2),
        "joined_without_xing": (lambda whole, frames: frames + frames, 2),
        "litter_at_end": (lambda whole, frames: whole + cover[:30_000], 1),
        "litter_at_start": (lambda whole, frames: bytes(5000) + whole, 1),
        "cut": (lambda whole, frames: frames[len(frames) // 2 + 99 :], None),
    }


@pytest.mark.parametrize("bitrate_mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("name", mp3_variants())
def test_mp3_is_read_to_the_end_with_any_header(tmp_path, name, bitrate_mode):
    want = music(8)
    want[: 3 * RATE] = 0  # a quiet start misleads who guesses the length from the first bitrate
    soundfile.write(tmp_path / "source.mp3", want, RATE, bitrate_mode=bitrate_mode)
    whole = (tmp_path / "source.mp3").read_bytes()
    first = whole.index(b"\xff\xfb", 4) if bitrate_mode == "VARIABLE" else whole.index(whole[:2], 4)
    assert b"Xing" in whole[:first] or b"Info" in whole[:first]
    change, times = mp3_variants()[name]
    (tmp_path / "a.mp3").write_bytes(change(whole, whole[first:]))
    got, _ = audio_files.read(tmp_path / "a.mp3")
    if times is None:
        assert len(want) / 4 < len(got) < len(want)
    else:
        assert abs(len(got) - times * len(want)) < 6000
    if times == 1:
        assert_same_music(got[3 * RATE :], want[3 * RATE :])


def test_mp3_in_blocks_equals_the_whole_file(tmp_path):
    """To seek between blocks, if only to where the decoder is, leaves errors of up to 0.27: its frames use bits of earlier ones."""
    noise = np.random.default_rng(0).normal(0, 0.2, (22050 * 8, 1)).clip(-1, 1)
    soundfile.write(tmp_path / "a.mp3", noise, 22050)
    whole, _ = soundfile.read(tmp_path / "a.mp3", dtype="float32", always_2d=True)
    for block_samples in (10_000, audio_files.BLOCK_SAMPLES):
        with audio_files.open_stream(tmp_path / "a.mp3", block_samples) as stream:
            np.testing.assert_allclose(np.concatenate(list(stream.blocks)), whole, atol=1e-6)


def test_files_without_a_length_in_the_header_are_read(tmp_path):
    want = audio_files.from_int16(audio_files.to_int16(music()))
    audio_files.write(tmp_path / "a.flac", want, RATE)
    flac = bytearray((tmp_path / "a.flac").read_bytes())
    flac[21] &= 0xF0
    flac[22:26] = bytes(4)  # STREAMINFO: total samples unknown
    audio_files.write(tmp_path / "a.wav", want, RATE)
    wav = bytearray((tmp_path / "a.wav").read_bytes())
    size = slice(wav.index(b"data") + 4, wav.index(b"data") + 8)
    files = {"open.flac": flac}
    for name, length in (("zero.wav", bytes(4)), ("open.wav", b"\xff" * 4)):
        files[name] = wav[: size.start] + length + wav[size.stop :]
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        np.testing.assert_array_equal(audio_files.read(tmp_path / name)[0], want, err_msg=name)


def test_decoder_depends_on_content_not_on_the_name(tmp_path):
    want = music()
    audio_files.write(tmp_path / "a.mp3", want, RATE)
    audio_files.write(tmp_path / "a.flac", want, RATE)
    for source, name in (("a.mp3", "b.wav"), ("a.mp3", "b.m4a"), ("a.flac", "b.mp3")):
        (tmp_path / name).write_bytes((tmp_path / source).read_bytes())
        np.testing.assert_array_equal(audio_files.read(tmp_path / name)[0], audio_files.read(tmp_path / source)[0])


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_file_names_may_be_invalid_utf8(tmp_path):
    audio_files.write(tmp_path / "a.wav", music(), RATE)
    encode_av(tmp_path / "a.m4a", music(), RATE, "aac", "ipod")
    for suffix in (".wav", ".m4a"):
        odd = os.fsencode(tmp_path) + b"/\xe9\n" + suffix.encode()
        os.rename(tmp_path / f"a{suffix}", odd)
        assert len(audio_files.read(os.fsdecode(odd))[0]) >= 3 * RATE


def test_float_files_keep_values_above_full_scale(tmp_path):
    soundfile.write(tmp_path / "a.wav", 4 * music(), RATE, subtype="FLOAT")
    np.testing.assert_array_equal(audio_files.read(tmp_path / "a.wav")[0], 4 * music())


def broken_files():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, 50_000).astype(np.uint8).tobytes()

    def hole(data):
        return data[: len(data) // 2] + noise[:8000] + data[len(data) // 2 + 8000 :]

    return {
        "empty.wav": lambda files: b"",
        "text.mp3": lambda files: b"not found\n" * 99,
        "page.mp3": lambda files: b"<html><body>404</body></html>" * 99,
        "noise.mp3": lambda files: noise,
        "noise.wav": lambda files: noise,
        "noise.m4a": lambda files: noise,
        "zeros.mp3": lambda files: bytes(50_000),
        "ones.mp3": lambda files: b"\xff" * 50_000,
        "picture.mp3": lambda files: b"\xff\xd8\xff\xe0" + noise,
        "header.wav": lambda files: files["a.wav"][:44],
        "half_header.wav": lambda files: files["a.wav"][:20],
        "truncated.mp3": lambda files: files["a.mp3"][: len(files["a.mp3"]) // 2],
        "truncated.flac": lambda files: files["a.flac"][: len(files["a.flac"]) // 2],
        "truncated.m4a": lambda files: files["a.m4a"][: len(files["a.m4a"]) // 2],
        "hole.mp3": lambda files: hole(files["a.mp3"]),
        "hole.flac": lambda files: hole(files["a.flac"]),
        "hole.m4a": lambda files: hole(files["a.m4a"]),
        "protected.m4p": lambda files: files["a.m4a"].replace(b"mp4a", b"drms"),
        "nan.wav": lambda files: files["nan.wav"],
        "inf.wav": lambda files: files["inf.wav"],
        "no_samples.wav": lambda files: files["no_samples.wav"],
    }


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    samples = music(6)
    for suffix in (".wav", ".mp3", ".flac"):
        audio_files.write(folder / f"a{suffix}", samples, RATE)
    encode_av(folder / "a.m4a", samples, RATE, "aac", "ipod")
    for name in ("nan", "inf"):
        samples[RATE] = float(name)
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="FLOAT")
    soundfile.write(folder / "no_samples.wav", samples[:0], RATE)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", broken_files())
def test_a_broken_file_is_a_one_line_error(tmp_path, whole_files, name):
    (tmp_path / name).write_bytes(broken_files()[name](whole_files))
    with pytest.raises(audio_files.AudioError) as caught:
        audio_files.read(tmp_path / name)
    message = str(caught.value)
    assert message and message.isprintable() and str(tmp_path) not in message


def test_missing_data_in_a_long_ogg_is_detected(tmp_path):
    noise = np.random.default_rng(0).normal(0, 0.2, (48000 * 12, 2)).clip(-1, 1)
    audio_files.write(tmp_path / "a.ogg", noise, 48000)
    data = (tmp_path / "a.ogg").read_bytes()
    middle = len(data) // 2
    (tmp_path / "a.ogg").write_bytes(data[:middle] + bytes(20_000) + data[middle + 20_000 :])
    with pytest.raises(audio_files.AudioError, match="truncated"):
        audio_files.read(tmp_path / "a.ogg")


def test_a_missing_file_and_a_folder_are_errors(tmp_path):
    for path in (tmp_path, tmp_path / "nothing.wav"):
        with pytest.raises(audio_files.AudioError):
            audio_files.read(path)


@pytest.mark.parametrize("source_hz", [8000, 11025, 22050, 48000, 96000, 192000])
@pytest.mark.parametrize("target_hz", [16000, 44100])
def test_resampling_in_blocks_equals_resampling_at_once(tmp_path, source_hz, target_hz):
    want = music(2, source_hz)
    soundfile.write(tmp_path / "a.wav", want, source_hz, subtype="FLOAT")
    whole = soxr.resample(want.mean(axis=1, keepdims=True), source_hz, target_hz, quality="HQ")
    for block_samples in (1000, 1 << 17):
        with audio_files.open_stream(tmp_path / "a.wav", block_samples) as stream:
            got = np.concatenate(list(audio_files.resample_blocks(stream, target_hz, 1)))
        assert got.shape == whole.shape
        np.testing.assert_allclose(got, whole, atol=1e-5)


def test_resampling_preserves_pitch_and_level(tmp_path):
    t = np.arange(2 * 48000) / 48000
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 1000 * t), 48000, subtype="FLOAT")
    got, rate = audio_files.read(tmp_path / "a.wav", 16000, 1)
    want = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2 * 16000) / 16000)
    assert rate == 16000
    np.testing.assert_allclose(got[800:-800, 0], want[800:-800], atol=1e-4)


def test_to_int16_rounds_and_clips():
    values = np.array([-2, -1, -1.4 / 32768, 0, 1.6 / 32768, 32767 / 32768, 1, 2], np.float32)
    assert audio_files.to_int16(values).tolist() == [-32768, -32768, -1, 0, 2, 32767, 32767, 32767]


def test_write_rejects_invalid_extensions_and_audio(tmp_path):
    with pytest.raises(ValueError, match=r"\.txt.*expected one of \.wav"):
        audio_files.write(tmp_path / "a.txt", music(), RATE)
    with pytest.raises(ValueError, match="NaN"):
        audio_files.write(tmp_path / "a.wav", np.full((10, 1), np.nan), RATE)
    with pytest.raises(ValueError, match="shape"):
        audio_files.write(tmp_path / "a.wav", np.zeros((1, 2, 3)), RATE)
    with pytest.raises(ValueError, match="12345 Hz"):
        audio_files.write(tmp_path / "a.mp3", music(), 12345)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg"])
def test_a_file_that_cannot_grow_is_an_error_with_its_reason(tmp_path, extension):
    resource = pytest.importorskip("resource", reason="not on Windows")
    noise = np.random.default_rng(0).uniform(-1, 1, (400_000, 1)).astype(np.float32)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # as a full disk, which needs a disk
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            audio_files.write(tmp_path / f"a.{extension}", noise, 8000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.filename == str(tmp_path / f"a.{extension}") and not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX only")
@pytest.mark.parametrize("extension", [".wav", ".flac"])
def test_a_name_that_is_no_text_can_be_written(tmp_path, extension):
    path = tmp_path / f"\udcff\u66f2{extension}"
    audio_files.write(path, np.zeros((100, 1), np.float32), 8000, 120.0)
    assert path.exists() and len(list(tmp_path.iterdir())) == 1
