"""`text_row`: a text becomes the input of a text model, with the weighting of its training."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from serve.models import Predictor
from serve.routes.common import text_row


@pytest.mark.parametrize(
    "options, expected",
    [({"weighting": "counts"}, [1, 3]), ({}, [2 * 1.0, 1 + np.log(3)])],
    ids=["counts", "a model of a version without the option"],
)
def test_text_row_has_the_weighting_of_the_training(options: dict, expected: list[float]):
    recipe: dict[str, Any] = {"idf": {"pie": 2.0, "red": 1.0}}
    config = {"data": {"options": options, "recipe": recipe}}
    predictor = cast(Predictor, SimpleNamespace(name="texts", config=config))
    row, words = text_row(predictor, b"red the red pie red")
    np.testing.assert_allclose(row[0], np.array(expected) / np.linalg.norm(expected), rtol=1e-6)
    assert words == ["pie", "red"]
