"""The networks: sizes, mixing, strength, what the store keeps. Clips: blending, flicker by hand
numbers, damaged files.
"""

import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from genray.errors import ConfigError
from genray.gen.images import clips
from genray.gen.images.clips import copy_sound, has_sound, read_clip
from genray.gen.images.features import untrained
from genray.gen.images.style.clip import Flicker, FlickerMeter, style_clip
from genray.gen.images.style.losses import mean_std
from genray.gen.images.style.networks import (
    AdaINNet,
    StyleNetConfig,
    TransformerNet,
    build_style_any,
    build_style_fast,
    padded,
    poolings_before,
    stack_up_to,
)
from genray.media import write_clip
from genray.runs.modelstore import load_model, save_model
from tests.helpers.gen import sounding

SMALL = StyleNetConfig(widths=(4, 6, 8), residual=1, kernel=3)


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def adain_net() -> AdaINNet:
    torch.manual_seed(0)
    return AdaINNet(SMALL, stack_up_to(untrained(0), "conv4"), 32).eval()


@pytest.fixture(scope="module")
def fast_net() -> TransformerNet:
    torch.manual_seed(0)
    net = TransformerNet(SMALL).eval()
    net.begin_with(picture(16, 16))
    return net


@pytest.mark.parametrize("size", [(8, 8), (9, 31), (33, 50), (64, 17)])
def test_any_size_in_the_same_size_out(
    fast_net: TransformerNet, adain_net: AdaINNet, size: tuple[int, int]
):
    content = picture(*size)
    for result in (fast_net.stylize(content), adain_net.stylize(content, [picture(40, 21, 1)])):
        assert result.shape == content.shape
        assert (
            float(result.min()) >= 0
            and float(result.max()) <= 1
            and bool(torch.isfinite(result).all())
        )


def test_padding_does_not_move_the_picture(fast_net: TransformerNet):
    content = picture(22, 27)
    reflected = torch.nn.functional.pad(content, (0, 1, 0, 2), mode="reflect")
    torch.testing.assert_close(padded(content, 4), reflected)
    torch.testing.assert_close(fast_net.stylize(content), fast_net(reflected)[..., :22, :27])


def test_an_untrained_transformer_is_a_transfer_of_colours():
    torch.manual_seed(0)
    net, content = TransformerNet(StyleNetConfig()), picture(64, 64)
    smooth = torch.nn.functional.interpolate(picture(6, 6, 2), 64, mode="bicubic").clamp(0, 1)
    style = 0.3 * smooth + torch.tensor([0.6, 0.1, 0.3])[None, :, None, None]
    with torch.no_grad():
        before = (net(content).mean((2, 3)) - style.mean((2, 3))).abs().max()
        net.begin_with(style)
        after = (net(content).mean((2, 3)) - style.mean((2, 3))).abs().max()
    assert after < 0.06 < before


def test_a_modulated_net_begins_as_the_plain_one_and_hears_of_contrast(tmp_path: Path):
    nets = []
    for modulated in (False, True):
        torch.manual_seed(0)
        nets.append(TransformerNet(replace(SMALL, modulated=modulated)))
    plain, net = nets
    content = picture(64, 64)
    weak = 0.5 + 0.3 * (content - 0.5)
    assert net.modulation is not None
    with torch.no_grad():
        torch.testing.assert_close(net(content), plain(content))
        deaf = (plain(content) - plain(weak)).abs().mean()
        torch.manual_seed(1)
        net.modulation.layers[-1].weight.normal_(std=0.3)
        assert (net(content) - net(weak)).abs().mean() > 5 * deaf
        both = torch.cat([content, weak])
        # each picture its own
        torch.testing.assert_close(net(both)[1:], net(weak), atol=1e-5, rtol=0)
    config = {**net.config.__dict__, "widths": [4, 6, 8], "about": {}}
    save_model(tmp_path / "model", "style_fast", config, net.state_dict(), "card")
    torch.testing.assert_close(
        load_model(tmp_path / "model", {"style_fast": build_style_fast})[0](weak), net(weak)
    )
    before = {name: value for name, value in config.items() if name != "modulated"}
    assert build_style_fast(before).modulation is None, "a model of before the option was there"


def test_alpha_and_the_refusals_of_a_fast_model(fast_net: TransformerNet):
    content = picture(16, 20)
    whole, half = fast_net.stylize(content), fast_net.stylize(content, alpha=0.5)
    torch.testing.assert_close(half, (whole + content) / 2)
    torch.testing.assert_close(fast_net.stylize(content, alpha=0.0), content)
    with pytest.raises(ConfigError, match="leave the style pictures out"):
        fast_net.stylize(content, [content])
    with pytest.raises(ConfigError, match="0..1"):
        fast_net.stylize(content, alpha=1.5)
    with pytest.raises(ConfigError, match="2049x8 pixels"):
        fast_net.stylize(torch.zeros(1, 3, 8, 2049))
    with pytest.raises(ConfigError, match="one RGB picture"):
        fast_net.stylize(torch.zeros(1, 1, 16, 16))


def test_alpha_0_decodes_the_content_and_1_has_the_styles_statistics(adain_net: AdaINNet):
    content, style = picture(32, 32), picture(32, 32, 1) ** 3
    code, wanted = adain_net.encode_picture(content), adain_net.encode_picture(style)
    torch.testing.assert_close(
        adain_net.stylize(content, [style], alpha=0.0), adain_net.decoder(code)
    )
    restyled = adain_net.restyled(code, [wanted], [1.0], 1.0)
    live = (mean_std(code)[1] > 1e-3).flatten()  # a dead channel has the mean alone
    for found, target in zip(mean_std(restyled), mean_std(wanted)):
        torch.testing.assert_close(found[:, live], target[:, live], atol=1e-4, rtol=0)


def test_styles_are_mixed_by_their_weights(adain_net: AdaINNet):
    content, a, b = picture(32, 32), picture(32, 32, 1), 0.3 * picture(32, 32, 2)
    only_a = adain_net.stylize(content, [a])
    torch.testing.assert_close(adain_net.stylize(content, [a, b], weights=[3, 0]), only_a)
    code, codes = adain_net.encode_picture(content), [adain_net.encode_picture(x) for x in (a, b)]
    both = 0.25 * adain_net.restyled(code, codes[:1], [1.0], 1.0) + 0.75 * adain_net.restyled(
        code, codes[1:], [1.0], 1.0
    )
    torch.testing.assert_close(
        adain_net.stylize(content, [a, b], weights=[1, 3]), adain_net.decoder(both)
    )
    with pytest.raises(ConfigError, match="name one or more style"):
        adain_net.stylize(content)
    with pytest.raises(ConfigError, match="one for each"):
        adain_net.stylize(content, [a, b], weights=[1])


def test_a_large_style_is_brought_to_the_size_of_training(adain_net: AdaINNet):
    assert adain_net.at_training_size(picture(200, 100)).shape == (1, 3, 64, 32)
    assert adain_net.at_training_size(picture(31, 90)).shape == (1, 3, 31, 90)


def test_a_cut_encoder_is_the_whole_ones_beginning():
    whole, content = untrained(3), picture(32, 32)
    assert [poolings_before(whole, layer) for layer in whole.layers] == [0, 0, 1, 1, 2, 2, 2, 3, 3]
    for layer in ("conv2", "conv5", "conv7"):
        short = stack_up_to(whole, layer)
        assert short.layers[-1] == layer
        torch.testing.assert_close(short(content, [layer]), whole(content, [layer]))
    with pytest.raises(ConfigError, match="no such layer"):
        stack_up_to(whole, "conv99")


def test_models_come_back_from_the_store(
    tmp_path: Path, fast_net: TransformerNet, adain_net: AdaINNet
):
    content = picture(24, 20)
    config = {**SMALL.__dict__, "widths": [4, 6, 8], "about": {"method": "style"}}
    extra = {"encoder": adain_net.encoder.config(), "style_side": 32}
    save_model(tmp_path / "fast", "style_fast", config, fast_net.state_dict(), "card")
    save_model(tmp_path / "any", "style_any", config | extra, adain_net.state_dict(), "card")
    builders = {"style_fast": build_style_fast, "style_any": build_style_any}
    fast: Any = load_model(tmp_path / "fast", builders)[0]
    anything: Any = load_model(tmp_path / "any", builders)[0]
    assert fast.max_side == anything.max_side == 2048
    torch.testing.assert_close(fast.stylize(content), fast_net.stylize(content))
    torch.testing.assert_close(
        anything.stylize(content, [content]), adain_net.stylize(content, [content])
    )


def test_widths_must_fit_the_encoder():
    with pytest.raises(ConfigError, match="2 poolings deep; give 3 widths"):
        AdaINNet(StyleNetConfig(widths=(4, 8)), stack_up_to(untrained(0), "conv4"), 32)
    with pytest.raises(ConfigError, match="too shallow"):
        AdaINNet(StyleNetConfig(encoder_layer="conv1"), untrained(0), 32)
    for bad in (StyleNetConfig(widths=(4,)), StyleNetConfig(kernel=4), StyleNetConfig(residual=-1)):
        with pytest.raises(ConfigError, match="--"):
            bad.validate()


# -- clips -----------------------------------------------------------------------------------------


def flat(*levels: int) -> list[np.ndarray]:
    return [np.full((8, 8, 3), level, np.uint8) for level in levels]


def flicker(styled: list[np.ndarray], content: list[np.ndarray]) -> Flicker:
    meter = FlickerMeter()
    for pair in zip(styled, content, strict=True):
        meter.add(*pair)
    return meter.flicker


def whole(path: Path, **options) -> tuple[list[np.ndarray], float]:
    clip = read_clip(path, **options)
    frames = list(clip)
    assert clip.count == len(frames)
    return frames, clip.fps


def test_flicker_by_hand():
    """The left half stands still, the right moves by 40; the styled left flickers by 10, the
    styled right by 30.
    """
    content, styled = flat(100, 100), flat(50, 60)
    content[1][:, 4:] += 40
    styled[1][:, 4:] += 20
    found = flicker(styled, content)
    assert (found.still, found.still_share, found.content, found.styled) == (10.0, 0.5, 20.0, 20.0)
    assert "flicker 10.00 levels" in str(found)
    assert flicker(styled[:1], content[:1]).still == 0


def test_blending_calms_what_stands_still_and_leaves_what_moves():
    noise = iter((0, 100))

    def shaky(frame: np.ndarray, before: np.ndarray | None) -> np.ndarray:
        return np.full_like(frame, next(noise))

    content = flat(10, 11)
    content[1][:, 4:] = 200
    meter = FlickerMeter()
    calm = list(style_clip(content, shaky, blend=0.75, meter=meter))
    assert calm[1][0, 0].tolist() == [28] * 3, "100 + 0.75·(1 − 1/24)·(0 − 100)"
    assert calm[1][0, 5].tolist() == [100] * 3
    assert meter.flicker.still == 28


def test_the_frame_before_is_handed_on_and_a_repeated_frame_is_not_styled_again():
    seen: list[int | None] = []

    def count(frame: np.ndarray, before: np.ndarray | None) -> np.ndarray:
        seen.append(None if before is None else int(before[0, 0, 0]))
        return frame + 1

    meter = FlickerMeter()
    frames = list(style_clip(flat(5, 5, 9), count, meter=meter))
    assert seen == [None, 6]
    assert [int(frame[0, 0, 0]) for frame in frames] == [6, 6, 10]
    assert meter.flicker.still == 0
    with pytest.raises(ConfigError, match="--blend 1"):
        next(style_clip(flat(1), count, blend=1.0))
    with pytest.raises(ConfigError, match="no frames"):
        next(style_clip([], count))


def test_clips_are_read_as_they_were_written(tmp_path: Path):
    frames = [np.full((16, 24, 3), level, np.uint8) for level in (20, 90, 90, 200)]
    for suffix, off in ((".gif", 0), (".mp4", 6)):
        path = write_clip(tmp_path / f"clip{suffix}", frames, fps=10, scale=1)
        again, fps = whole(path)
        assert len(again) == 4 and fps == pytest.approx(10)
        for one, other in zip(frames, again):
            assert np.abs(one.astype(int) - other).max() <= off
        assert np.array_equal(whole(path, max_frames=3)[0], again[:3])


@pytest.mark.parametrize(
    ("lasts", "max_frames", "counts", "fps"),
    [
        ([100, 100], 99, [1, 1], 10),
        ([60, 80, 200, 140], 99, [3, 4, 10, 7], 50),  # exactly
        ([30, 40, 100, 70], 99, [2, 2, 5, 3], 50),  # 240 ms in all, none off by more than 10
        ([60, 80, 200, 140], 20, [1, 1, 4, 2], 1000 / 60),  # 24 are too many: by the shortest
        ([20, 30, 30, 30, 20], 99, [1, 2, 1, 2, 1], 50),  # every frame is shown
    ],
)
def test_a_gifs_frames_last_as_long_as_it_says(
    lasts, max_frames, counts, fps, tmp_path: Path, monkeypatch
):
    pictures = [
        Image.fromarray(np.full((8, 8, 3), 50 * number, np.uint8)) for number in range(len(lasts))
    ]
    path = tmp_path / "uneven.gif"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=lasts)
    monkeypatch.setattr(clips, "MAX_REPEATED", max_frames)
    frames, found = whole(path)
    assert np.unique([frame[0, 0, 0] for frame in frames], return_counts=True)[1].tolist() == counts
    assert found == pytest.approx(fps)


@pytest.mark.parametrize(
    ("matrix", "turns"), [((0, 1, -1, 0), -1), ((0, -1, 1, 0), 1), ((-1, 0, 0, -1), 2)]
)
def test_a_phones_video_is_read_upright(
    matrix: tuple[int, int, int, int], turns: int, tmp_path: Path
):
    """The matrix of the track's header, 16.16 fixed-point: x' = a·x + c·y, y' = b·x + d·y, y
    downwards.
    """
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[:16, :16] = 255  # the top left corner
    path = write_clip(tmp_path / "clip.mp4", [frame], scale=1)
    content = bytearray(path.read_bytes())
    at = content.find(b"tkhd") + 44
    a, b, c, d = (each << 16 for each in matrix)
    assert struct.unpack(">9i", content[at : at + 36]) == (
        1 << 16,
        0,
        0,
        0,
        1 << 16,
        0,
        0,
        0,
        1 << 30,
    )
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    (read,), _ = whole(path)
    np.testing.assert_allclose(read, np.rot90(frame, turns), atol=40)


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_bad_clips_are_refused_in_one_line(tmp_path: Path, suffix: str):
    path = tmp_path / f"bad{suffix}"
    with pytest.raises(ConfigError, match="no such file"):
        read_clip(path)
    path.write_bytes(b"not a clip at all" * 20)
    with pytest.raises(ConfigError, match="damaged one") as caught:
        read_clip(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="not a clip"):
        read_clip(tmp_path / "x.avi")


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_a_clip_is_decoded_no_further_than_it_is_asked_for(suffix: str, tmp_path: Path):
    """300 frames of which the second half is gone: the first five are read all the same."""
    frames = [
        np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
        for number in range(40)
    ]
    path = write_clip(tmp_path / f"clip{suffix}", frames, fps=10, scale=1)
    content = bytearray(path.read_bytes())
    begin, end = len(content) // 2, len(content) - 4000  # an MP4's index is at its end
    content[begin:end] = bytes(end - begin)
    path.write_bytes(content)
    assert len(whole(path, max_frames=5)[0]) == 5


def test_styling_a_long_clip_keeps_few_frames_in_memory(tmp_path: Path):
    """60 frames of 320x240 are 14 MB."""
    levels = np.arange(60, dtype=np.uint8) * 4
    path = write_clip(
        tmp_path / "long.mp4",
        [np.full((240, 320, 3), each, np.uint8) for each in levels],
        fps=30,
        scale=1,
    )
    tracemalloc.start()
    try:
        clip = read_clip(path)
        count = sum(1 for _ in style_clip(clip, lambda frame, before: 255 - frame))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == clip.count == 60 and peak < 5e6


# -- sound -----------------------------------------------------------------------------------------


def packets_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [
            bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size
        ]


@pytest.mark.parametrize(("seconds", "share"), [(2.0, 1.0), (0.5, 0.25)])
def test_copy_sound_copies_the_packets_of_the_frames_that_are_used(
    seconds: float, share: float, tmp_path: Path
):
    source = sounding(tmp_path / "source.mp4")
    frames = [np.full((48, 64, 3), 9 * number, np.uint8) for number in range(round(10 * seconds))]
    styled = write_clip(tmp_path / "styled.mp4", frames, fps=10, scale=1)
    assert has_sound(source) and not has_sound(styled)
    copy_sound(source, styled, seconds)
    kept, there = packets_of(styled), packets_of(source)
    assert kept == there[: len(kept)] and abs(len(kept) - share * len(there)) <= 1
    assert len(whole(styled)[0]) == len(frames)
    with av.open(str(styled)) as container:
        tone = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert np.abs(np.fft.rfft(tone[:4000])).argmax() == 220  # 440 Hz at 8,000 samples/s
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.mp4", "styled.mp4"]
