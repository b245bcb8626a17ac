"""Tests the routes of OpenAI's API with OpenAI's client: models, generations, edits, refusals."""

import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from PIL import Image

from serve.limits import Limits
from tests.serve.conftest import Web


@pytest.fixture
def client(web: Web) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{web.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def image_of(datum) -> np.ndarray:
    with Image.open(io.BytesIO(base64.b64decode(datum.b64_json))) as image:
        return np.asarray(image)


def png(picture: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind)
    return buffer.getvalue()


def test_models_route_lists_and_describes_models(client: openai.OpenAI):
    names = [model.id for model in client.models.list()]
    assert names == ["digits", "digits-ae", "digits-gan", "digits-vae", "road-runner", "waves"]
    assert client.models.retrieve("digits-vae").owned_by == "genray"


def test_generations_depend_on_the_seed(client: openai.OpenAI):
    def generate(**options):
        return client.images.generate(model="digits-gan", prompt="a digit", **options)

    four = generate(n=4, extra_body={"seed": 5})
    images = [image_of(datum) for datum in four.data]
    assert [image.shape for image in images] == [(8, 8)] * 4
    assert len({image.tobytes() for image in images}) == 4
    second = image_of(generate(extra_body={"seed": 6}).data[0])
    assert np.abs(second.astype(int) - images[1]).max() <= 1  # image i has the seed 5 + i
    large = image_of(generate(size="64x64", extra_body={"seed": 5}).data[0])  # type: ignore[arg-type]
    assert (large == images[0].repeat(8, 0).repeat(8, 1)).all()
    url = generate(response_format="url", extra_body={"seed": 5}).data[0].url
    assert url.startswith("data:image/png;base64,")


def test_generations_without_a_seed_return_a_new_seed(client: openai.OpenAI):
    one, other = (client.images.generate(model="digits-vae", prompt="") for _ in range(2))
    assert one.seed != other.seed  # type: ignore[attr-defined]
    again = client.images.generate(model="digits-vae", prompt="", extra_body={"seed": one.seed[0]})  # type: ignore[attr-defined]
    assert (image_of(again.data[0]) == image_of(one.data[0])).all()


def test_generations_without_a_model_use_the_first_generator(client: openai.OpenAI):
    assert client.images.generate(prompt="").model == "digits-gan"  # type: ignore[attr-defined]


def test_generations_accept_latents_instead_of_a_seed(client: openai.OpenAI, web: Web):
    model = web.service.registry.get("digits-vae")
    latent = model.latents([3])
    by_seed = client.images.generate(model="digits-vae", prompt="", extra_body={"seed": 3})
    by_latent = client.images.generate(
        model="digits-vae", prompt="", extra_body={"latent": latent.tolist()}
    )
    assert np.abs(image_of(by_seed.data[0]).astype(int) - image_of(by_latent.data[0])).max() <= 1


def test_edits_apply_a_style(client: openai.OpenAI, photo: np.ndarray):
    for kind in ("PNG", "JPEG", "WEBP"):
        made = client.images.edit(model="waves", image=("photo", png(photo, kind)), prompt="waves")
        result = image_of(made.data[0])
        assert result.shape == photo.shape and (result != photo).any()
    halfway = client.images.edit(
        model="waves", image=png(photo), prompt="", extra_body={"alpha": 0}
    )
    assert np.abs(image_of(halfway.data[0]).astype(int) - photo).max() <= 1


def test_edits_scale_down_to_the_requested_size(client: openai.OpenAI, photo: np.ndarray):
    made = client.images.edit(model="waves", image=png(photo), prompt="", size="48x48")  # type: ignore[arg-type]
    assert image_of(made.data[0]).shape == (32, 48, 3)


def test_edits_dream_with_a_classifier(client: openai.OpenAI, photo: np.ndarray):
    made = client.images.edit(
        model="digits", image=png(photo), prompt="", extra_body={"steps": 1, "seed": 1}
    )
    assert image_of(made.data[0]).shape == photo.shape
    assert made.about["layer"].startswith("conv")  # type: ignore[attr-defined]


def test_edits_dream_with_lite0_by_its_own_defaults(web: Web, client: openai.OpenAI):
    """Without `steps`, the dream is the one of `genray dream --features lite0`."""
    from genray.gen.images.dream import DreamConfig, Objective, dream
    from genray.gen.images.features import lite0
    from genray.gen.images.pictures import to_rgb, to_tensor

    picture = np.random.default_rng(0).integers(0, 255, (48, 48, 3)).astype(np.uint8)
    made = client.images.edit(model="lite0", image=png(picture), prompt="")
    assert made.about == {"method": "dream", "layer": "block10", "steps": 24, "seed": 0}  # type: ignore[attr-defined]
    own = to_rgb(dream(to_tensor(picture), Objective(lite0()), DreamConfig()))
    assert np.abs(image_of(made.data[0]).astype(int) - own).max() <= 1
    (card,) = httpx.get(f"{web.url}/v1/models").json()["builtin"]
    assert card["id"] == "lite0" and card["about"]["name"] == "ImageNet"


def test_edits_with_lite0_keep_the_limits(start: Callable[..., Web], photo: np.ndarray):
    web = start(limits=Limits(max_steps=2, max_side=64))
    with openai.OpenAI(base_url=f"{web.url}/v1", api_key="none", max_retries=0) as client:
        made = client.images.edit(model="lite0", image=png(photo), prompt="")
        assert made.about["steps"] == 2  # type: ignore[attr-defined]
        assert max(image_of(made.data[0]).shape) == 64
        with pytest.raises(openai.BadRequestError, match="steps '3': must be .* 1..2"):
            client.images.edit(model="lite0", image=png(photo), prompt="", extra_body={"steps": 3})
        with pytest.raises(openai.BadRequestError, match="layer block99: lite0 has no such layer"):
            client.images.edit(
                model="lite0", image=png(photo), prompt="", extra_body={"layer": "block99"}
            )


def test_edits_with_lite0_say_that_its_weights_are_missing(
    web: Web, client: openai.OpenAI, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    from genray.gen.images.features import lite0_features
    from serve import builtin

    builtin._loaded.cache_clear()
    for module in (lite0_features, builtin):
        monkeypatch.setattr(module, "weights_file", lambda: None)
    with pytest.raises(openai.NotFoundError, match="weights are not installed .* classifier"):
        client.images.edit(model="lite0", image=png(photo), prompt="")
    assert httpx.get(f"{web.url}/v1/models").json()["builtin"] == []


def test_a_model_of_the_directory_named_lite0_takes_precedence(
    models_dir: Path, start: Callable[..., Web], photo: np.ndarray
):
    (models_dir / "digits").rename(models_dir / "lite0")
    web = start(models_dir)
    assert httpx.get(f"{web.url}/v1/models").json()["builtin"] == []
    with openai.OpenAI(base_url=f"{web.url}/v1", api_key="none", max_retries=0) as client:
        made = client.images.edit(
            model="lite0", image=png(photo), prompt="", extra_body={"steps": 1}
        )
    assert made.about["layer"].startswith("conv")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"model": "nope"}, openai.NotFoundError, "the models are: digits"),
        (
            {"model": "road-runner"},
            openai.BadRequestError,
            "has no function 'generate'; its functions: act",
        ),
        ({"n": 33}, openai.APIStatusError, "at most 32 images"),
        ({"n": 0}, openai.UnprocessableEntityError, "n: "),
        ({"size": "30x30"}, openai.BadRequestError, "8x8, 16x16, 32x32, 64x64"),
        ({"size": "8000x8000"}, openai.APIStatusError, "at most 1024"),
        ({"size": "big"}, openai.BadRequestError, "WIDTHxHEIGHT"),
        ({"extra_body": {"seed": -1}}, openai.UnprocessableEntityError, "seed: "),
        ({"extra_body": {"latent": [[1.0]]}}, openai.BadRequestError, "rows of 32 numbers"),
        ({"extra_body": {"latent": [[1e300] * 32]}}, openai.BadRequestError, "finite numbers"),
    ],
)
def test_generations_refusals_raise_the_clients_exceptions(
    client: openai.OpenAI, options: dict, kind: type, message: str
):
    with pytest.raises(kind, match=message):
        client.images.generate(**{"prompt": "", "model": "digits-gan", **options})


def bomb() -> bytes:
    """Return a PNG of a few bytes whose header claims 60,000 x 60,000 pixels."""
    import struct
    import zlib

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 10_000)), (b"IEND", b"")):
        parts.append(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )
    return b"".join(parts)


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"not a picture", 415, "not an image"),
        (b"", 415, "empty"),
        (bomb(), 413, "more pixels than the limit"),
        (png(np.zeros((64, 64, 3), np.uint8))[:60], 415, "truncated or damaged"),
        (png(np.zeros((4, 4, 3), np.uint8)), 415, "at least 8"),
        (b"GIF89a" + b"\0" * 100, 415, "GIF"),
    ],
)
def test_edits_refuse_files_that_are_not_pictures(
    client: openai.OpenAI, content: bytes, status: int, message: str
):
    with pytest.raises(openai.APIStatusError, match=message) as refused:
        client.images.edit(model="waves", image=("x.png", content), prompt="")
    assert refused.value.status_code == status


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "digits-gan"}, "does not edit pictures"),
        ({"extra_body": {"alpha": 2}}, "alpha '2': must lie in 0..1"),
        ({"extra_body": {"alpha": "nan"}}, "alpha 'nan'"),
        ({"n": 2}, "one picture"),
        ({"model": "digits", "extra_body": {"layer": "conv9"}}, "no such layer"),
        ({"model": "digits", "extra_body": {"steps": 1000}}, "1..100"),
    ],
)
def test_edits_refuse_invalid_options(
    client: openai.OpenAI, photo: np.ndarray, options: dict, message: str
):
    with pytest.raises(openai.BadRequestError, match=message):
        client.images.edit(**{"model": "waves", "image": png(photo), "prompt": "", **options})


def test_models_route_deletes_and_rollback_restores(start: Callable[..., Web]):
    web = start()
    with openai.OpenAI(base_url=f"{web.url}/v1", api_key="none", max_retries=0) as client:
        version = client.models.retrieve("digits-gan").version  # type: ignore[attr-defined]
        assert client.models.delete("digits-gan").deleted
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("digits-gan")
        answer = httpx.post(f"{web.url}/api/models/digits-gan/rollback", json={})
        assert answer.json() == {"id": "digits-gan", "version": version}
        assert client.images.generate(model="digits-gan", prompt="").data


def test_models_route_refuses_to_delete_without_allow_changes(start: Callable[..., Web]):
    web = start(allow_changes=False)
    with openai.OpenAI(base_url=f"{web.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError, match="--no-allow-changes"):
            client.models.delete("digits-gan")


def test_pictures_are_decoded_in_the_thread_for_slow_work(
    web: Web, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    """A picture of 25 million pixels takes a second to decode, too long for the event loop."""
    from serve.routes import common

    threads: list[str] = []

    def spy(*arguments, **options):
        threads.append(threading.current_thread().name)
        return read_picture(*arguments, **options)

    read_picture = common.read_picture
    monkeypatch.setattr(common, "read_picture", spy)
    with httpx.Client(base_url=web.url, timeout=30) as client:
        edited = client.post(
            "/v1/images/edits", data={"model": "waves"}, files={"image": ("x", png(photo))}
        )
        found = client.post("/api/retrieve/digits-vae", content=png(photo))
    assert (edited.status_code, found.status_code) == (200, 200)
    assert len(threads) == 2 and all(name.startswith("genray-slow") for name in threads)


def test_edits_answer_429_with_retry_after(start: Callable[..., Web], photo: np.ndarray):
    web = start(limits=Limits(max_slow=1))
    web.service._slow_work.add(Future())
    with openai.OpenAI(base_url=f"{web.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.RateLimitError, match="try again in 5 s") as refused:
            client.images.edit(model="waves", image=png(photo), prompt="")
    assert refused.value.response.headers["retry-after"] == "5"


def test_edits_after_a_timeout_stop_working(start: Callable[..., Web], photo: np.ndarray):
    """The client receives 408. The dream ends at its next step and counts as waiting till then."""
    web = start(limits=Limits(request_timeout_s=1, max_slow=1))
    with httpx.Client(base_url=web.url, timeout=60) as client:
        picture = png(np.tile(photo, (8, 8, 1)))
        form = {"model": "digits", "steps": "100", "size": "512x512"}
        assert (
            client.post("/v1/images/edits", data=form, files={"image": ("x", picture)}).status_code
            == 408
        )
        stop = time.monotonic() + 20
        while web.service.waiting and time.monotonic() < stop:
            time.sleep(0.02)
        assert web.service.waiting == 0
    begin = time.monotonic()
    web.service._slow.submit(lambda: None).result(timeout=30)
    assert time.monotonic() - begin < 1  # the thread for slow work is idle


@pytest.mark.parametrize(("form", "quality"), [("png", None), ("jpeg", 80), ("webp", 30)])
def test_generations_and_edits_have_the_output_format_asked_for(
    client: openai.OpenAI, photo: np.ndarray, form: str, quality: int | None
):
    extra = {} if quality is None else {"output_compression": quality}
    made = client.images.generate(
        model="digits-gan", prompt="", n=2, size="64x64", output_format=form, **extra
    )
    edited = client.images.edit(
        model="waves", image=png(photo), prompt="", output_format=form, **extra
    )
    for data, size in ((made.data[1], (64, 64)), (edited.data[0], (96, 64))):
        with Image.open(io.BytesIO(base64.b64decode(data.b64_json))) as opened:
            assert (opened.format, opened.size) == (form.upper(), size)


def test_generations_and_edits_stream_their_events(client: openai.OpenAI, photo: np.ndarray):
    events = [
        *client.images.generate(
            model="digits-gan", prompt="", n=2, stream=True, output_format="jpeg"
        ),
        *client.images.edit(model="waves", image=png(photo), prompt="", stream=True),
    ]
    kinds = ["image_generation.completed"] * 2 + ["image_edit.completed"]
    assert [event.type for event in events] == kinds
    assert [event.output_format for event in events] == ["jpeg", "jpeg", "png"]
    for event in events:
        with Image.open(io.BytesIO(base64.b64decode(event.b64_json))) as opened:
            assert f"{opened.width}x{opened.height}" == event.size


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"background": "transparent"}, "background"),
        ({"partial_images": 2}, "partial_images"),
        ({"extra_body": {"frame_count": 3}}, "frame_count"),
        ({"output_compression": 50}, "output_compression"),
        ({"extra_body": {"svg": {"a": 1}}}, "svg"),
    ],
)
def test_generations_and_edits_refuse_options_that_they_cannot_honour(
    client: openai.OpenAI, photo: np.ndarray, options: dict, name: str
):
    with pytest.raises(openai.BadRequestError, match=name):
        client.images.generate(model="digits-gan", prompt="", **options)
    if "extra_body" not in options:
        with pytest.raises(openai.BadRequestError, match=name):
            client.images.edit(model="waves", image=png(photo), prompt="", **options)


def test_edits_change_the_transparent_area_of_a_mask_only(client: openai.OpenAI, photo: np.ndarray):
    height, width = photo.shape[:2]
    whole = edited(client, photo)
    alpha_HW1 = np.full((height, width, 1), 255, np.uint8)
    alpha_HW1[:, : width // 2] = 0
    found = edited(client, photo, mask=png(np.dstack([photo, alpha_HW1])))
    edge = width // 8
    np.testing.assert_array_equal(found[:, : width // 2 - edge], whole[:, : width // 2 - edge])
    np.testing.assert_array_equal(found[:, width // 2 + edge :], photo[:, width // 2 + edge :])
    assert not np.array_equal(whole[:, width // 2 + edge :], photo[:, width // 2 + edge :])


def edited(client: openai.OpenAI, photo: np.ndarray, **options: Any) -> np.ndarray:
    answer = client.images.edit(model="waves", image=png(photo), prompt="", **options)
    assert answer.data and answer.data[0].b64_json
    with Image.open(io.BytesIO(base64.b64decode(answer.data[0].b64_json))) as opened:
        return np.asarray(opened)


def test_edits_refuse_masks_of_another_size_or_without_transparency(
    client: openai.OpenAI, photo: np.ndarray
):
    for mask, message in ((photo, "no transparent"), (photo[:-1], "send a mask of the image")):
        with pytest.raises(openai.BadRequestError, match=message):
            client.images.edit(model="waves", image=png(photo), mask=png(mask), prompt="")
    with pytest.raises(openai.BadRequestError, match="mask"):
        client.images.generate(model="digits-gan", prompt="", extra_body={"mask": "a"})


def test_edits_name_the_limit_of_files(web: Web, photo: np.ndarray):
    files = [("image", ("a.png", png(photo)))] * 9
    answer = httpx.post(f"{web.url}/v1/images/edits", files=files)
    assert answer.status_code == 400 and "at most 8 files" in answer.json()["error"]["message"]
