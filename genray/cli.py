"""Entry point of the `genray` command.

Exit status: 0 success, 1 the run failed (the message says how to resume), 2 the request cannot be
carried out, 130 stopped by the user.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from genray.console import escape_unprintable
from genray.errors import ConfigError, GenrayError
from genray.options import fail
from genray.runs.stop import leave_stdout
from genray.threads import sleep_while_waiting

# name -> (module:function, description). The function takes the remaining words and the program's
# name. A module is imported when its command is called, so that `genray --help` needs neither
# PyTorch nor Ray.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": (
        "genray.commands.demo:main",
        "train, evaluate and film an agent on Road Runner, in minutes",
    ),
    "train dqn": (
        "genray.commands.train_dqn:train_dqn",
        "double/dueling DQN with distributed prioritized replay (Ape-X)",
    ),
    "train ae": (
        "genray.commands.train:train_ae",
        "autoencoders: undercomplete, denoising, convolutional, stacked",
    ),
    "train vae": ("genray.commands.train:train_vae", "variational autoencoders"),
    "train gan": ("genray.commands.train:train_gan", "GANs, dense and convolutional"),
    "train sprites": (
        "genray.commands.train:train_sprites",
        "sprite models: game screens at full size, as a sequence of sprites",
    ),
    "train pix2pix": (
        "genray.commands.train:train_pix2pix",
        "image-to-image translation on pairs, such as edges and pictures",
    ),
    "train cyclegan": (
        "genray.commands.train:train_cyclegan",
        "image-to-image translation between two sets of images, without pairs",
    ),
    "train world": (
        "genray.commands.train:train_world",
        "world models: a game that runs inside a network, from episodes of play",
    ),
    "train classifier": (
        "genray.commands.train:train_classifier",
        "an image classifier, which metrics, styles and dreams can use",
    ),
    "train style": (
        "genray.commands.train:train_style",
        "style models: one style, or any, in one pass",
    ),
    "train optimizer": (
        "genray.commands.train:train_optimizer",
        "learned optimizers, for --optimizer learned:RUN of the other trainings",
    ),
    "evaluate": (
        "genray.commands.evaluate:evaluate",
        "RUN: whole games with the trained policy, scores under a stated protocol",
    ),
    "play": (
        "genray.commands.evaluate:play",
        "RUN --out clip.gif|mp4: film the policy; MODEL --dream: a game beside a dream",
    ),
    "sample": ("genray.commands.models:sample", "MODEL --out grid.png: images from a vae or a gan"),
    "reconstruct": (
        "genray.commands.models:reconstruct",
        "MODEL --out grid.png: held-out images beside their reconstructions",
    ),
    "interpolate": (
        "genray.commands.models:interpolate",
        "MODEL --out walk.gif|mp4: a walk through the latents",
    ),
    "encode": ("genray.commands.models:encode", "MODEL --out codes.parquet: the codes of a split"),
    "map": (
        "genray.commands.codes:map_codes",
        "MODEL --out map.png: codes in the plane, coloured by class",
    ),
    "retrieve": (
        "genray.commands.codes:retrieve",
        "MODEL [QUERY …] --out sheet.png: nearest neighbours by code",
    ),
    "cluster": ("genray.commands.codes:cluster", "MODEL: k-means on codes against labels"),
    "anomalies": (
        "genray.commands.anomalies:anomalies",
        "MODEL: detect an unseen class by its reconstruction error",
    ),
    "export": (
        "genray.commands.export:export",
        "MODEL --out model.onnx: ONNX for other programs; a policy as a folder to publish",
    ),
    "stylize": (
        "genray.commands.style:stylize",
        "CONTENT STYLE … --out out.png: a picture in the style of others",
    ),
    "translate": (
        "genray.commands.translate:translate",
        "IMAGE … --model RUN: pictures, folders or clips with a pix2pix or CycleGAN",
    ),
    "dream": (
        "genray.commands.dream:dream",
        "IMAGE --out dream.png|gif|mp4: amplify what a network detects in a picture",
    ),
    "imagine": (
        "genray.commands.imagine:imagine_classes",
        "CLASS …: pictures of classes, such as goldfish, by a network that classifies",
    ),
    "features": (
        "genray.commands.features:features",
        "[NAME …]: the networks of styles and dreams, with their layers",
    ),
    "figures": ("genray.commands.figures:figures", "[NAME …] --out DIR: pictures of optimisation"),
    "data atari": (
        "genray.commands.data:data_atari",
        "--games … --frames …: play games and keep the frames as images",
    ),
    "data screens": (
        "genray.commands.data:data_screens",
        "--game … --frames …: record screens at full size, for `genray train sprites`",
    ),
    "data episodes": (
        "genray.commands.data:data_episodes",
        "--game … --frames …: record episodes with actions and rewards, for `genray train world`",
    ),
    "data paintings": (
        "genray.commands.data:data_paintings",
        "[--out DIR]: unpack GCompris' paintings and photographs, with credits",
    ),
    "sweep": (
        "genray.commands.sweep:sweep",
        "STUDY --model …: compare optimizers or regularisers in trials on Ray Tune",
    ),
    "sweep report": ("genray.commands.sweep:report", "SWEEP: a page with its tables and pictures"),
    "sweep promote": (
        "genray.commands.sweep:promote",
        "SWEEP --name NAME: save its best trial as a model of the store",
    ),
    "serve": (
        "genray.commands.serve:serve",
        "MODELS_DIR: a page and an API over its models, on Ray Serve",
    ),
    "submit": (
        "genray.commands.cluster:submit",
        "-- COMMAND …: run a command of genray as a job on a Ray cluster",
    ),
    "status": (
        "genray.commands.cluster:status",
        "[RUN …]: a cluster's roles, and its runs' rates, lag and losses",
    ),
    "check-learner": (
        "genray.commands.check_learner:check_learner",
        "learned values beside known ones on tiny environments, in about 30 seconds",
    ),
    "doctor": (
        "genray.commands.doctor:doctor",
        "check this installation, and say how to repair it",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    escape_unprintable()
    sleep_while_waiting()
    words = list(sys.argv[1:] if argv is None else argv)
    find_own_modules()
    try:
        name, command, rest = _find(words)
        if name in ("submit", "status") or any(
            word.partition("=")[0] == "--address" for word in rest
        ):
            _show_token()
        status = command(rest, f"genray {name}")
        sys.stdout.flush()  # flush here, so that a closed pipe raises inside this `try`
        return status
    except GenrayError as error:
        return fail(error, error.exit_status)
    except KeyboardInterrupt:
        return fail(RuntimeError("stopped"), 130)
    except BrokenPipeError:  # `genray … | head`
        leave_stdout()
        return 0
    except (
        OSError
    ) as error:  # e.g. a full or read-only disk, if the command raised no more specific error
        return fail(error, 1)


def find_own_modules() -> None:
    """Let `--env module:factory` name a file in the working directory, as with `python -m genray`.

    The directory comes last on the import path, so that no file there replaces an installed module.
    """
    here = os.getcwd()
    if not sys.flags.safe_path and not {"", here} & set(sys.path):
        sys.path.append(here)


def _show_token() -> None:
    """Make Ray send this machine's token, if there is one, to a cluster.

    Ray reads RAY_AUTH_MODE when it is imported. Without this variable, it does not always send the
    token.
    """
    if os.environ.get("RAY_AUTH_TOKEN") or Path("~/.ray/auth_token").expanduser().exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _find(words: list[str]) -> tuple[str, Callable[[list[str], str], int], list[str]]:
    """Find the command that the first one or two words name.

    Returns (the command's name, its function, the remaining words). Raises ConfigError if there is
    no such command.
    """
    if not words or words[0] in ("-h", "--help", "help"):
        return "help", _help, []
    if words[0] == "--version":
        return "version", _version, []
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in COMMANDS:
            module, _, function = COMMANDS[name][0].partition(":")
            return name, getattr(importlib.import_module(module), function), words[count:]
    import difflib

    firsts = [name for name in COMMANDS if name.split()[0] == words[0]]
    near = (
        firsts
        or difflib.get_close_matches(" ".join(words[:2]), COMMANDS, n=3, cutoff=0.3)
        or ["demo"]
    )
    raise ConfigError(
        f"genray {' '.join(words[:2])}: no such command; did you mean {', '.join(near)}?"
    )


def _help(argv: list[str], prog: str) -> int:
    print("usage: genray COMMAND [options]     (each command has --help)\n")
    for name, (_, text) in COMMANDS.items():
        print(f"  {name:<16} {text}")
    return 0


def _version(argv: list[str], prog: str) -> int:
    from genray import __version__

    print(f"genray {__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
