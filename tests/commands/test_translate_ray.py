"""`genray translate FOLDER --address auto`: a Ray Data pipeline with the results of one process."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genray import cli
from genray.gen.translation.config import TranslatorModelConfig
from genray.gen.translation.model import build_translator, translator_config
from genray.runs.modelstore import save_model

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("ray_here"),
    # Ray Data warns about its own settings.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
    pytest.mark.filterwarnings("ignore::UserWarning:ray.data.context"),
]


def test_translate_address_gives_the_pictures_of_one_process(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = translator_config(TranslatorModelConfig(widths=(4, 4, 4)))
    config |= {"shape": [3, 16, 16], "channels_out": 3, "low": -1.0, "high": 1.0}
    config |= {"directions": ["a_to_b"], "about": {"method": "pix2pix", "input": "images"}}
    save_model(Path("model"), "translator", config, build_translator(config).state_dict(), "card")
    for number in range(3):
        path = Path("photos", "ab"[number % 2], f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.RandomState(number).randint(0, 256, (16, 24, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    words = ["translate", "photos", "--model", "model"]
    assert cli.main([*words, "--out", "one"]) == 0
    Path("photos", "broken.png").write_bytes(b"no picture")
    assert cli.main([*words, "--out", "many", "--address", "auto"]) == 1
    assert "1 of 4 pictures could not be read" in capsys.readouterr().err
    names = sorted(path.relative_to("one") for path in Path("one").rglob("*.png"))
    assert names == sorted(path.relative_to("many") for path in Path("many").rglob("*.png"))
    assert len(names) == 3
    for name in names:
        one, many = (
            np.asarray(Image.open(folder / name)) for folder in (Path("one"), Path("many"))
        )
        np.testing.assert_array_equal(one, many)
    assert cli.main([*words, "--address", "auto", "--device", "cuda"]) == 2
    assert "--device cuda: --address auto translates on CPUs" in capsys.readouterr().err
    assert cli.main([*words[:1], "photos/a/0.png", *words[2:], "--address", "auto"]) == 2
    assert "--address auto: for folders and several pictures" in capsys.readouterr().err
