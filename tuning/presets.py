"""Defines the named studies: the arms that they compare, and the settings that are tuned for each
arm.

An arm's `default` has the settings of its library or its paper. An arm's `space` has the nuisance
parameters, which are tuned separately for each arm. Every arm gets the same number of trials.
Rankings of optimizers depend on the search space, so each study states its space. [Choi 2019,
https://arxiv.org/abs/1910.05446; Schmidt 2021, https://arxiv.org/abs/2007.01547]
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from genray.errors import ConfigError, require
from genray.gen.learned_optimizer.use import check_learned
from genray.gen.training.optimizers import is_learned
from genray.paths import absolute_path
from tuning.settings import changed, check_path, setting
from tuning.spaces import Choice, Integers, LogUniform, Space, Switch, Uniform


@dataclass(frozen=True)
class Arm:
    """One of the choices that a study compares."""

    name: str
    """Name in the directories of trials: small letters, digits and hyphens."""
    space: Space
    """The settings that are tuned."""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """The settings that define the arm; every trial of the arm has them."""
    default: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the arm's `default` trials, where those of the base would be unfair."""


@dataclass(frozen=True)
class Study:
    """Arms that are compared under equal conditions. A search without comparison has one arm,
    `all`.
    """

    name: str
    arms: tuple[Arm, ...]
    base: Mapping[str, Any] = field(default_factory=dict)
    """Settings of every trial, applied before those of an arm."""
    about: str = ""

    def check(self, base: Any) -> None:
        """Raise ConfigError if an arm's settings or space are empty or do not fit the configuration
        `base`.
        """
        require(len(self.arms) > 0, f"study {self.name}: has no arms; give at least one")
        names = [arm.name for arm in self.arms]
        require(
            len(set(names)) == len(names),
            f"study {self.name}: two arms have one name ({', '.join(names)}); rename one of them",
        )
        for arm in self.arms:
            where = f"study {self.name}, arm {arm.name}"
            clash = sorted(set(arm.fixed) & set(arm.space.paths))
            require(
                not clash,
                f"{where}: {', '.join(clash)} is both fixed and varied; leave one of the two out",
            )
            try:
                for settings in (arm.fixed, {**arm.fixed, **arm.default}):
                    changed(base, settings).validate()
                arm.space.check(changed(base, arm.fixed))
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from error

    def only(self, names: Sequence[str]) -> "Study":
        """Return the study with some of its arms. Raises ConfigError, with the nearest names, for
        an unknown arm.

        In a study of optimizers, `learned:RUN` is an arm, too.
        """
        known = {arm.name: arm for arm in self.arms}
        if any("optimizer.optimizer" in arm.fixed for arm in self.arms):
            known |= {name: learned_arm(name) for name in names if is_learned(name)}
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or list(known)
                raise ConfigError(
                    f"--arms {name}: no such arm of {self.name}; did you mean {', '.join(near)}?"
                )
        return Study(self.name, tuple(known[name] for name in names), self.base, self.about)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serializable dictionary; `from_dict` is the inverse."""
        arms = [
            {
                "name": arm.name,
                "space": arm.space.to_list(),
                "fixed": _plain(arm.fixed),
                "default": _plain(arm.default),
            }
            for arm in self.arms
        ]
        return {"name": self.name, "about": self.about, "base": _plain(self.base), "arms": arms}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Study":
        """Create the study that `to_dict` described."""
        arms = tuple(
            Arm(each["name"], Space.from_list(each["space"]), each["fixed"], each["default"])
            for each in values["arms"]
        )
        return cls(values["name"], arms, values["base"], values["about"])


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        path: list(value) if isinstance(value, tuple) else value for path, value in settings.items()
    }


# -- optimizers ------------------------------------------------------------------------------------

RATE, SCALE = "optimizer.learning_rate", "optimizer.learned_scale"


def rate_path(base: Any) -> str:
    """Return the setting that scales the updates of the base's optimizer: η, or the factor of a
    learned optimizer, which has no η.
    """
    return SCALE if is_learned(setting(base, "optimizer.optimizer")) else RATE


def _arm(name: str, default_rate: float, low: float, high: float, *more: Any) -> Arm:
    return Arm(
        name,
        Space(LogUniform(RATE, low, high), *more),
        {"optimizer.optimizer": name},
        {RATE: default_rate},
    )


def learned_arm(name: str) -> Arm:
    """Return the arm of the optimizer "learned:RUN", of which only a factor of its updates is
    tuned. The arm is named after the run's directory. Raises ConfigError without such a run.
    """
    check_learned(name)
    run = absolute_path(name.partition(":")[2])
    words = re.sub("[^a-z0-9]+", "-", f"learned-{run.name}".lower()).strip("-")
    return Arm(
        words,
        Space(LogUniform(SCALE, 0.1, 10.0)),
        {"optimizer.optimizer": f"learned:{run}"},
        {SCALE: 1.0},
    )


def optimizers(family: str, base: Any) -> Study:
    """Compare eleven optimizers. The default learning rates are those of PyTorch's classes, and for
    the last four those of genray.gen.training.extra_optimizers.

    The ranges of η span at least four decades around the usual values, so that the best value of an
    arm is not expected at a bound. The four rules that solve for L1 may switch L1 on: without a
    penalty, the proximal rules equal SGD and AdaGrad.
    """
    _need(base, family, "optimizers", RATE)
    momentum = Choice("optimizer.momentum", (0.5, 0.8, 0.9, 0.95, 0.99))
    rho = Choice("optimizer.rho", (0.8, 0.9, 0.99, 0.999))
    sparse = Switch("optimizer.l1", LogUniform("optimizer.l1", 1e-7, 1e-3))
    arms = (
        _arm("sgd", 1e-3, 1e-5, 1.0),
        _arm("momentum", 1e-3, 1e-6, 0.3, momentum),
        _arm("nesterov", 1e-3, 1e-6, 0.3, momentum),
        _arm("adagrad", 1e-2, 1e-4, 1.0),
        _arm("rmsprop", 1e-2, 1e-5, 1e-1, rho),
        _arm(
            "adam",
            1e-3,
            1e-5,
            1e-1,
            Choice("optimizer.beta1", (0.5, 0.8, 0.9, 0.95)),
            Choice("optimizer.beta2", (0.9, 0.99, 0.999)),
        ),
        _arm("adadelta", 1.0, 1e-3, 10.0, rho),
        _arm("adagrad-da", 1e-2, 1e-4, 1.0, sparse),
        _arm("ftrl", 1e-2, 1e-4, 1.0, LogUniform("optimizer.epsilon", 1e-4, 10.0), sparse),
        _arm("proximal-gradient-descent", 1e-3, 1e-5, 1.0, sparse),
        _arm("proximal-adagrad", 1e-2, 1e-4, 1.0, sparse),
    )
    return Study(
        "optimizers",
        arms,
        {},
        f"{len(arms)} optimizers of the {family}, each with its own tuned η and more",
    )


# -- regularisers ----------------------------------------------------------------------------------


def regularisers(family: str, base: Any) -> Study:
    """Compare no regulariser with one regulariser at a time; the strength and η are tuned for each.
    Regularisers that the family does not have are omitted.
    """
    _need(base, family, "regularisers", RATE)
    off: dict[str, Any] = {
        "optimizer.l1": 0.0,
        "optimizer.l2": 0.0,
        "fit.patience": 0,
        "data.augment": (),
    }
    for path, value in (
        ("model.dropout", 0.0),
        ("model.discriminator_dropout", 0.0),
        ("model.batch_norm", False),
        ("model.generator_norm", "none"),
    ):
        # Dropout of an autoencoder belongs to its classifier, which not every autoencoder has.
        mute = (family, path) == ("ae", "model.dropout") and not setting(
            base, "model.finetune_labels"
        )
        if _has(base, path) and not mute:
            off[path] = value
    require(
        family != "optimizer",
        f"--model optimizer: study regularisers does not support this family; "
        f"{_SUPPORTED['regularisers']}",
    )
    path_of_rate = rate_path(base)
    rate = setting(base, path_of_rate)
    eta = LogUniform(path_of_rate, rate / 10, rate * 10)
    arms = [Arm("none", Space(eta))]
    arms.append(_strength("l1", LogUniform("optimizer.l1", 1e-7, 1e-2), eta, 1e-5))
    arms.append(_strength("l2", LogUniform("optimizer.l2", 1e-6, 1e-1), eta, 1e-4))
    if "model.dropout" in off:
        arms.append(_strength("dropout", Uniform("model.dropout", 0.05, 0.6), eta, 0.5))
    elif "model.discriminator_dropout" in off:
        share = Uniform("model.discriminator_dropout", 0.05, 0.6)
        arms.append(_strength("dropout", share, eta, 0.3))
    if "model.batch_norm" in off and _takes(base, off | {"model.batch_norm": True}):
        arms.append(Arm("batch-norm", Space(eta), {"model.batch_norm": True}))
    elif "model.generator_norm" in off:
        arms.append(Arm("batch-norm", Space(eta), {"model.generator_norm": "batch"}))
    arms.append(_strength("early-stopping", Integers("fit.patience", 1, 8), eta, 3))
    if setting(base, "data.data").partition(":")[0] not in ("docs", "folder-text"):
        # The choice sets the strength of the augmentation: a shift by a tenth of the side, a crop
        # to four fifths of the side, or both.
        kinds = Choice("data.augment", (("shift",), ("crop",), ("shift", "crop")))
        arms.append(_strength("augmentation", kinds, eta, ("shift",)))
    arms = [
        Arm(arm.name, arm.space, arm.fixed, {path_of_rate: rate, **arm.default}) for arm in arms
    ]
    return Study("regularisers", tuple(arms), off, f"regularisers of the {family}, one at a time")


def _strength(name: str, dimension: Any, eta: LogUniform, default: Any) -> Arm:
    return Arm(name, Space(dimension, eta), {}, {dimension.path: default})


# -- searches with one arm -------------------------------------------------------------------------


def gan_stability(family: str, base: Any) -> Study:
    """Tune both networks' learning rates and one-sided label smoothing, which population based
    training changes during training.
    """
    _need(base, family, "gan_stability", "discriminator_learning_rate")
    space = Space(
        LogUniform(RATE, 1e-5, 1e-2),
        LogUniform("discriminator_learning_rate", 1e-5, 1e-2),
        Uniform("label_smoothing", 0.0, 0.3),
    )
    rates = {"discriminator_learning_rate": setting(base, RATE)}
    # The hinge loss of some presets has no labels to smooth.
    return Study(
        "gan_stability",
        (Arm("all", space, {}, rates),),
        {"loss": "non-saturating"},
        "stability of a GAN",
    )


def architecture(family: str, base: Any) -> Study:
    """Tune the sizes of the networks together with η, which depends on them."""
    dimensions: list[Any] = []
    if _has(base, "learner.learning_rate"):
        dimensions = [
            LogUniform("learner.learning_rate", 3e-5, 3e-3),
            Choice("network.hidden", (64, 128, 256)),
            Choice("network.dueling", (False, True)),
        ]
    else:
        rate = setting(base, rate_path(base))
        dimensions.append(LogUniform(rate_path(base), rate / 10, rate * 10))
        if _has(base, "model.latent"):
            dimensions.append(Choice("model.latent", _around(setting(base, "model.latent"))))
        if _has(base, "model.lstm_units"):
            dimensions.append(
                Choice("model.lstm_units", _around(setting(base, "model.lstm_units")))
            )
        if _has(base, "model.code"):
            dimensions.append(Choice("model.code", _around(setting(base, "model.code"))))
        for path in (
            "model.widths",
            "model.channels",
            "model.generator_widths",
            "model.discriminator_widths",
        ):
            if _has(base, path) and setting(base, path):
                widths = setting(base, path)
                dimensions.append(
                    Choice(
                        path, tuple(tuple(max(1, w * k // 2) for w in widths) for k in (1, 2, 4))
                    )
                )
    return Study(
        "architecture", (Arm("all", Space(*dimensions)),), {}, f"sizes of the {family}'s networks"
    )


def agent(family: str, base: Any) -> Study:
    """Tune options of DQN: η, n-step returns, target period, double, prioritization."""
    _need(base, family, "agent", "learner.learning_rate")
    space = Space(
        LogUniform("learner.learning_rate", 3e-5, 3e-3),
        Choice("learner.target_period_updates", (50, 200, 800)),
        Choice("learner.double", (False, True)),
        Choice("collect.n_step", (1, 3, 5)),
        Uniform("replay.alpha", 0.0, 0.8),
    )
    return Study("agent", (Arm("all", space),), {}, "options of the DQN agent")


def _around(number: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys(max(1, value) for value in (number // 2, number, number * 2)))


def _has(config: Any, path: str) -> bool:
    try:
        check_path(type(config), path)
    except ConfigError:
        return False
    return True


def _takes(config: Any, settings: Mapping[str, Any]) -> bool:
    try:
        changed(config, settings).validate()
    except ConfigError:
        return False
    return True


def _need(config: Any, family: str, study: str, path: str) -> None:
    require(
        _has(config, path),
        f"--model {family}: study {study} does not support this family; {_SUPPORTED[study]}",
    )


_SUPPORTED = {
    "optimizers": "use --model ae, vae, gan, pix2pix, cyclegan, classifier or optimizer",
    "regularisers": "use --model ae, vae, gan, pix2pix, cyclegan or classifier",
    "gan_stability": "use --model gan",
    "agent": "use --model dqn",
}

STUDIES: dict[str, Callable[[str, Any], Study]] = {
    function.__name__: function
    for function in (optimizers, regularisers, gan_stability, architecture, agent)
}
"""Maps a name to a function of (family, base configuration) that returns the study."""


def named_study(name: str, family: str, base: Any) -> Study:
    """Return the study `name` of a family. Raises ConfigError with the nearest names for an unknown
    study.
    """
    squeezed = name.replace("-", "_")
    if squeezed not in STUDIES:
        near = difflib.get_close_matches(squeezed, STUDIES, n=2, cutoff=0.4) or list(STUDIES)
        raise ConfigError(f"genray sweep {name}: no such study; did you mean {', '.join(near)}?")
    return STUDIES[squeezed](family, base)
