"""A sprite model: a language and a transformer over its tokens, as one generative model.

Shapes: B batch, T tokens, H height and W width of the screen, P colours, V shapes.
"""

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genray.gen.generative import GenerativeModel, draw_prior
from genray.gen.sprites.acceptance import CANDIDATES, Statistics, class_of, num_statistics
from genray.gen.sprites.components import TRANSPARENT
from genray.gen.sprites.config import SpriteModelConfig
from genray.gen.sprites.network import FIELDS, GROUP, SHAPE, Sizes, SpriteTransformer, X, Y
from genray.gen.sprites.palette import NearestColour
from genray.gen.sprites.quick_sampling import QuickSampler
from genray.gen.sprites.rows import encode_whole
from genray.gen.sprites.runs import Run
from genray.gen.sprites.sampling import TOP_P, Support, draw_tokens
from genray.gen.sprites.tokens import Language, Token
from genray.gen.sprites.vocabulary import Shape, Vocabulary

CANVAS = 32
"""The network sees the top left corner of a shape, of this many pixels in both directions."""
NEAR = 2
"""A generated shape is at most this many pixels from a row and from a column in which it was seen
in training."""
FEW = 8
"""On a CPU, up to this many sequences are drawn one by one, which is faster than as a batch."""


class SpriteModel(GenerativeModel):
    """Generates screens: draws tokens and paints them.

    A latent is a row of numbers in −1..1, five for each token, which the model maps to tokens by
    inverting its cumulative probabilities. A small change of a latent can change the whole screen,
    so a walk between latents shows nothing (`can_walk`).

    Args:
        config: the network.
        sizes: of the language.
        longest: largest number of tokens of a generated screen.
        colours: P.
        pixels: number of pixels of all shapes' bounding boxes.
    """

    can_walk = False

    def __init__(
        self, config: SpriteModelConfig, sizes: Sizes, longest: int, colours: int, pixels: int
    ):
        super().__init__(
            latent=longest * FIELDS, prior="uniform", shape=(3, sizes.height, sizes.width),
            low=0.0, high=1.0,
        )  # fmt: skip
        self.config, self.sizes, self.longest = config, sizes, longest
        self.temperature = 1.0
        self.top_p: tuple[float, ...] = TOP_P
        self.network = SpriteTransformer(
            sizes, CANVAS * CANVAS + colours + 2, width=config.width, layers=config.layers,
            heads=config.heads, dropout=config.dropout, longest=longest,
            wrong_tokens=config.wrong_tokens,
        )  # fmt: skip
        self.palette = _buffer(self, "palette", (colours, 3), torch.uint8)
        self.background = _buffer(self, "background", (sizes.height, sizes.width), torch.uint8)
        self.group_of_colour = _buffer(self, "group_of_colour", (colours,), torch.int64)
        self.painted = _buffer(self, "painted", (sizes.groups,), torch.int64)
        self.runs = _buffer(self, "runs", (sizes.runs, 3), torch.int64)
        self.shape_sizes = _buffer(self, "shape_sizes", (sizes.shapes, 2), torch.int64)
        self.shape_pixels = _buffer(self, "shape_pixels", (pixels,), torch.uint8)
        self.seen_y = _buffer(self, "seen_y", (sizes.shapes, sizes.height), torch.bool)
        self.seen_x = _buffer(self, "seen_x", (sizes.shapes, sizes.width), torch.bool)
        self.group_bias = _buffer(self, "group_bias", (sizes.groups + 1,), torch.float32)
        self.most_alike = _buffer(self, "most_alike", (sizes.shapes,), torch.int64)
        # Weights and limit of acceptance.py; with zeros, every drawn screen is accepted.
        statistics = num_statistics(sizes.groups)
        self.accept_weight = _buffer(self, "accept_weight", (statistics,), torch.float32)
        self.accept_limit = _buffer(self, "accept_limit", (1,), torch.float32)
        self._language: Language | None = None
        self._nearest: NearestColour | None = None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # A model of an earlier version accepts every screen.
        for name in ("accept_weight", "accept_limit"):
            state_dict.setdefault(prefix + name, torch.zeros_like(getattr(self, name)))
        super()._load_from_state_dict(state_dict, prefix, *args)

    # -- the language -----------------------------------------------------------------------------

    @classmethod
    def of_language(
        cls, config: SpriteModelConfig, language: Language, tokens: Iterable[Sequence[Token]]
    ) -> "SpriteModel":
        """Create an untrained model of `language`; `tokens`: of the training screens."""
        shapes, tokens = language.vocabulary.shapes, list(tokens)
        height, width = language.screen_shape
        sizes = Sizes(language.groups, height, width, len(shapes), len(language.runs))
        model = cls(
            config, sizes, max(1, *map(len, tokens)), len(language.palette_P3),
            sum(len(shape.pixels) for shape in shapes),
        )  # fmt: skip
        flat_K5 = np.array([token for screen in tokens for token in screen]).reshape(-1, FIELDS)
        for name, value in (
            ("palette", language.palette_P3),
            ("background", language.background_HW),
            ("group_of_colour", language.group_P),
            ("painted", np.array(language.layers)),
            ("runs", np.array(language.runs)),
            ("shape_sizes", np.array([(shape.height, shape.width) for shape in shapes])),
            ("shape_pixels", np.frombuffer(b"".join(each.pixels for each in shapes), np.uint8)),
            ("seen_y", _seen(flat_K5, Y, len(shapes), height)),
            ("seen_x", _seen(flat_K5, X, len(shapes), width)),
            ("most_alike", _most_alike(shapes, tokens)),
        ):
            getattr(model, name).copy_(torch.from_numpy(np.array(value)))
        colours = len(language.palette_P3)
        features_VF = np.stack(
            [shape_features(each.pixels, each.height, each.width, colours) for each in shapes]
        )
        group_V = torch.tensor([shape.group for shape in shapes])
        model.network.describe(torch.from_numpy(features_VF), group_V)
        model._language = language
        return model

    @property
    def language(self) -> Language:
        """The language of the model's tensors."""
        if self._language is None:
            group_V = self.network.group_of.tolist()
            pixels, shapes, start = self.shape_pixels.cpu().numpy().tobytes(), [], 0
            for group, (height, width) in zip(group_V, self.shape_sizes.tolist()):
                shapes.append(Shape(group, height, width, pixels[start : start + height * width]))
                start += height * width
            self._language = Language(
                self.palette.cpu().numpy(),
                self.background.cpu().numpy(),
                self.group_of_colour.cpu().numpy(),
                Vocabulary(shapes),
                tuple(Run(*run) for run in self.runs.tolist()),
                tuple(self.painted.tolist()),
            )
        return self._language

    # -- screens and tokens -----------------------------------------------------------------------

    def indices(self, x_BCHW: Tensor) -> np.ndarray:
        """Return the palette indices of images in 0..1, uint8 [B, H, W].

        A colour that the training screens lack becomes the most similar colour.
        """
        rgb_BHW3 = x_BCHW.mul(255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        if self._nearest is None:
            self._nearest = NearestColour(self.palette.cpu().numpy())
        return self._nearest.indices(rgb_BHW3)

    def screen_tokens(self, x_BCHW: Tensor) -> list[list[Token]]:
        """Return the tokens of images in 0..1."""
        encode = encode_whole if self.config.whole_rows else Language.encode
        return [encode(self.language, screen_HW) for screen_HW in self.indices(x_BCHW)]

    def pad(self, tokens: Sequence[Sequence[Token]]) -> Tensor:
        """Return tokens as int64 [B, T, 5], with rows of the group `end` after each sequence."""
        return pad_tokens(tokens, self.network.end).to(self.background.device)

    def paint(self, tokens_BT5: Tensor) -> np.ndarray:
        """Return the screens of padded tokens, palette indices uint8 [B, H, W]."""
        end = self.network.end
        return np.stack(
            [
                self.language.decode([token for token in row if token[GROUP] != end])
                for row in tokens_BT5.tolist()
            ]
        )

    def images(self, indices_BHW: np.ndarray) -> Tensor:
        """Return palette indices as images, float32 [B, 3, H, W] in 0..1."""
        rgb_BHW3 = self.palette.cpu().numpy()[indices_BHW]
        device = self.background.device
        return torch.from_numpy(rgb_BHW3).to(device).permute(0, 3, 1, 2).float().div(255)

    def reconstruct(self, x_BCHW: Tensor) -> Tensor:
        """Encode and decode images in 0..1."""
        return self.images(self.paint(self.pad(self.screen_tokens(x_BCHW))))

    def log_likelihood(self, x_BCHW: Tensor) -> Tensor:
        """Return ln p of the tokens of images in 0..1, nats, float32 [B]."""
        return self.network.log_likelihood(self.pad(self.screen_tokens(x_BCHW)))

    # -- generation -------------------------------------------------------------------------------

    @cached_property
    def statistics(self) -> Statistics:
        """Computes what acceptance depends on."""
        language = self.language
        backgrounds = len(language.backgrounds_KHW) if language.has_backgrounds else 0
        return Statistics(language.vocabulary.shapes, language.runs, self.sizes.groups, backgrounds)

    def drawn_tokens(
        self, chance_BT5: Tensor, sampler: QuickSampler | None = None
    ) -> list[list[Token]]:
        """Return the tokens of numbers in [0, 1), one sequence for each row, none rejected.

        `sampler`: draws them one by one; None: as a batch, which gives the same. Tokens beyond
        `most_alike` are left out: a screen of a game with one hero has one hero.
        """
        if sampler:
            drawn = [sampler.draw(chance_T5) for chance_T5 in chance_BT5.numpy()]
        else:
            drawn = draw_tokens(self.network, chance_BT5, *self._sampling()).tolist()
        shapes, most_V = self.language.vocabulary.shapes, self.most_alike.tolist()
        kept: list[list[Token]] = []
        for row in drawn:
            count: Counter[int] = Counter()
            kept.append([])
            for token in (Token(*each) for each in row if each[GROUP] != self.network.end):
                alike = class_of(shapes[token.shape])
                count[alike] += 1
                if count[alike] <= most_V[token.shape]:
                    kept[-1].append(token)
        return kept

    def tokens_of(self, chance_BT5: Tensor) -> Tensor:
        """Return the tokens of numbers in [0, 1), int64 [B, T, 5] with padding.

        A screen that is rejected (see acceptance.py) is drawn again. The numbers of a row are the
        seed of the random numbers for its further candidates, so a row's tokens do not depend on
        the other rows.
        """
        few = len(chance_BT5) <= FEW and chance_BT5.device.type == "cpu"
        sampler = QuickSampler(self.network, *self._sampling()) if few else None
        if not self.accept_weight.any():
            return self.pad(self.drawn_tokens(chance_BT5, sampler))
        weight_F = self.accept_weight.cpu().numpy()
        number_BK = chance_BT5.flatten(1).cpu().numpy()
        width = number_BK.shape[1]
        random = [np.random.default_rng(zlib.crc32(row.tobytes())) for row in number_BK]
        found: dict[int, list[Token]] = {}
        left, done = list(range(len(random))), 0
        while left:
            # Draw candidates for the rows without an accepted one.
            count = 1 if sampler else min(len(random) // len(left), CANDIDATES - done)
            fresh = [random[row].random((count, width + 1), np.float32) for row in left]
            if not done:
                for numbers, row in zip(fresh, left):
                    numbers[0, :-1] = number_BK[row]
            done += count
            fresh_AK = torch.from_numpy(np.concatenate(fresh)).to(chance_BT5.device)
            candidates_AT5 = fresh_AK[:, :-1].view(-1, *chance_BT5.shape[1:])
            drawn = self.drawn_tokens(candidates_AT5, sampler)
            statistics_AF = self.statistics.of(pad_tokens(drawn, self.network.end).numpy())
            score_A = statistics_AF @ weight_F - float(self.accept_limit)
            accepted_A = fresh_AK[:, -1].cpu().numpy() < np.exp(np.minimum(0, score_A))
            # Take the first accepted candidate, or the last one of all.
            for at, row in enumerate(left):
                accepted = np.flatnonzero(accepted_A[at * count : (at + 1) * count])
                if len(accepted) or done == CANDIDATES:
                    first = accepted[0] if len(accepted) else count - 1
                    found[row] = drawn[at * count + first]
            left = [row for row in left if row not in found]
        return self.pad([found[row] for row in range(len(random))])

    def _sampling(self) -> tuple[float, tuple[float, ...], Support, Tensor]:
        """Return what restricts draws: the arguments of `draw_tokens` after the numbers."""
        return self.temperature, self.top_p, Support(self.seen_y, self.seen_x), self.group_bias

    def draw_screens(self, num: int, seed: int, chunk: int = 256) -> Iterator[np.ndarray]:
        """Yield the screens that `sample` makes, palette indices uint8 [B, H, W], B ≤ `chunk`.

        Palette indices need a twelfth of the memory of images.
        """
        generator = torch.Generator().manual_seed(seed)
        z_NZ = draw_prior(self.prior, num, self.latent, generator)
        for z_BZ in z_NZ.to(self.background.device).split(chunk):
            yield self.paint(self.tokens_of(self._chances(z_BZ)))

    def generate(self, z_BZ: Tensor) -> Tensor:
        return self.images(self.paint(self.tokens_of(self._chances(z_BZ))))

    def _chances(self, z_BZ: Tensor) -> Tensor:
        """Return latents as numbers in [0, 1), [B, T, 5]."""
        return z_BZ.add(1).div(2).clamp(0, 1 - 1e-7).view(len(z_BZ), self.longest, FIELDS)


def _buffer(
    module: torch.nn.Module, name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """Register a buffer of zeros and return it."""
    module.register_buffer(name, torch.zeros(shape, dtype=dtype))
    buffer: Tensor = getattr(module, name)
    return buffer


def pad_tokens(tokens: Sequence[Sequence[Token]], end: int, dtype: type = np.int64) -> Tensor:
    """Return sequences of tokens as one tensor [B, T, 5], with rows of the group `end` after each
    sequence.
    """
    longest = max([1, *map(len, tokens)])
    padded_BT5: np.ndarray = np.zeros((len(tokens), longest, FIELDS), dtype)
    padded_BT5[:, :, GROUP] = end
    for row, screen in zip(padded_BT5, tokens):
        if screen:
            row[: len(screen)] = screen
    return torch.from_numpy(padded_BT5)


def shape_features(pixels: bytes, height: int, width: int, colours: int) -> np.ndarray:
    """Describe a shape: which pixels it has, how many of each colour, and its size; uint8 [F]."""
    pixels_HW = np.frombuffer(pixels, np.uint8).reshape(height, width)
    canvas = np.zeros((CANVAS, CANVAS), np.uint8)
    part_HW = pixels_HW[:CANVAS, :CANVAS]
    canvas[: part_HW.shape[0], : part_HW.shape[1]] = np.where(part_HW == TRANSPARENT, 0, 255)
    shown = pixels_HW[pixels_HW != TRANSPARENT]
    share_P = np.rint(255 * np.bincount(shown, minlength=colours) / len(shown))
    size = np.minimum(255, 4 * np.array([height, width]))
    return np.concatenate([canvas.ravel(), share_P, size]).astype(np.uint8)


def _seen(tokens_K5: np.ndarray, field: int, shapes: int, length: int) -> np.ndarray:
    """Return where each shape was seen, widened by NEAR to both sides; bool [V, length]."""
    seen = np.zeros((shapes, length), bool)
    for shift in range(-NEAR, NEAR + 1):
        place = tokens_K5[:, field] + shift
        inside = (place >= 0) & (place < length)
        seen[tokens_K5[inside, SHAPE], place[inside]] = True
    return seen


def _most_alike(shapes: Sequence[Shape], screens: Sequence[Sequence[Token]]) -> np.ndarray:
    """Return for each shape the largest number of tokens of its class on a training screen, int64
    [V].
    """
    most: Counter[int] = Counter()
    for tokens in screens:
        most |= Counter(class_of(shapes[token.shape]) for token in tokens)
    return np.array([most[class_of(shape)] for shape in shapes], np.int64)


def build_sprites(config: dict[str, Any]) -> SpriteModel:
    """Build the model that a saved model's `config` describes, for the model store (kind
    "sprites").
    """
    # A model of an earlier version lacks some options.
    names = SpriteModelConfig.__dataclass_fields__.keys() & config["model"].keys()
    return SpriteModel(
        SpriteModelConfig(**{name: config["model"][name] for name in names}),
        Sizes(*config["sizes"]), config["longest"], config["colours"], config["pixels"],
    )  # fmt: skip
