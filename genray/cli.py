"""The roof: one command, `genray`.

Exit status: 0 done, 1 a fault on the way (the message says how to resume), 2 a request that cannot be carried out.
"""

import importlib
import sys
from collections.abc import Callable, Sequence

from genray.errors import ConfigError, GenrayError
from genray.options import fail

# name -> (module:function, which takes the remaining words and the program's name; what it does). The modules are loaded when
# they are called: `genray --help` needs neither PyTorch nor Ray.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("genray.demo:main", "train, evaluate and film an agent on Road Runner, in minutes"),
    "train dqn": ("genray.commands.rl:train_dqn", "double/dueling DQN with distributed prioritized replay (Ape-X)"),
    "evaluate": (
        "genray.commands.rl:evaluate",
        "RUN: whole games with the trained policy, scores under a stated protocol",
    ),
    "play": ("genray.commands.rl:play", "RUN --out clip.gif|mp4: film the policy"),
    "doctor": ("genray.commands.rl:doctor", "what is wrong with this installation, and how to mend it"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        name, command, rest = _find(words)
        return command(rest, f"genray {name}")
    except GenrayError as error:
        return fail(error, error.exit_status)
    except KeyboardInterrupt:
        return fail(RuntimeError("stopped"), 130)
    except BrokenPipeError:  # `genray … | head`
        sys.stderr.close()
        return 0


def _find(words: list[str]) -> tuple[str, Callable[[list[str], str], int], list[str]]:
    """The command that the first one or two words name."""
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
    near = firsts or difflib.get_close_matches(" ".join(words[:2]), COMMANDS, n=3, cutoff=0.3) or ["demo"]
    raise ConfigError(f"genray {' '.join(words[:2])}: no such command; did you mean {', '.join(near)}?")


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
