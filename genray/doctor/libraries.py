"""Checks of Python and the libraries: their versions, and whether they fit together."""

import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata

from genray.doctor.check import REINSTALL, Check, fail, ok, warn


def check_python(version: Sequence[int] = sys.version_info[:3]) -> Check:
    """Check that the interpreter is new enough."""
    found = ".".join(map(str, version))
    if tuple(version[:2]) < (3, 11):
        return fail(
            "Python",
            f"{found}: genray needs 3.11 or newer",
            "install Python 3.11 or newer, then: make PYTHON=python3.11 test",
        )
    return ok("Python", found)


def requirement(distribution: str, name: str) -> str | None:
    """Return the versions of `name` that an installed distribution requires, e.g. ">=2.60,<3".

    The result is None if the distribution is not installed or accepts every version.
    """
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return None
    wanted = (Requirement(line) for line in lines)
    return next(
        (str(r.specifier) for r in wanted if r.name.lower() == name and str(r.specifier)), None
    )


def fits(version: str, specifier: str | None) -> bool:
    """Return whether a version meets a specifier; local parts such as +cu130 are ignored."""
    from packaging.specifiers import SpecifierSet

    return not specifier or SpecifierSet(specifier).contains(
        version.partition("+")[0], prereleases=True
    )


def check_libraries(requirements: Iterable[str] | None = None) -> Check:
    """Check that every library that genray requires is installed, in an accepted version."""
    from packaging.requirements import Requirement

    name = "Libraries"
    if requirements is None:
        try:
            requirements = metadata.requires("genray") or []
        except metadata.PackageNotFoundError:
            return warn(
                name,
                "genray itself is not installed, only imported from a folder",
                "pip install -e . -c constraints.txt",
            )
    # Requirements of extras do not count.
    wanted = [
        r
        for r in map(Requirement, requirements)
        if not r.marker or r.marker.evaluate({"extra": ""})
    ]
    wrong = []
    for one in wanted:
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            wrong.append((one.name, f"{one.name} is missing"))
            continue
        if not fits(version, str(one.specifier)):
            wrong.append((one.name, f"{one.name} is {version}, wanted {one.specifier}"))
    if wrong:
        return fail(
            name,
            "; ".join(text for _, text in wrong),
            REINSTALL.format(" ".join(library for library, _ in wrong)),
        )
    return ok(name, f"{len(wanted)} of {len(wanted)} as pyproject.toml requires")


def _run_nms() -> None:
    """Call a compiled operator of torchvision. It fails if torch and torchvision do not match."""
    import torch
    from torchvision.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]])
    kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
    if kept != [0, 2]:
        raise RuntimeError(f"torchvision.ops.nms kept boxes {kept}, not [0, 2]")


def check_torch(
    torch_version: str | None = None,
    torchvision_version: str | None = None,
    torchvision_wants: str | None = None,
    run_nms: Callable[[], None] = _run_nms,
) -> Check:
    """Check that torch and torchvision were built for each other."""
    name = "torch and torchvision"
    repair = (
        "take both from the same index, both with CUDA or both without: "
        "pip install --force-reinstall torch torchvision -c constraints.txt"
    )
    torch_version = torch_version or metadata.version("torch")
    torchvision_version = torchvision_version or metadata.version("torchvision")
    torchvision_wants = torchvision_wants or requirement("torchvision", "torch")
    pair = f"torch {torch_version}, torchvision {torchvision_version}"
    if not fits(torch_version, torchvision_wants):
        return fail(name, f"{pair}, which wants torch{torchvision_wants}", repair)
    try:
        run_nms()
    except Exception as error:
        reason = str(error).partition("\n")[0]
        return fail(name, f"{pair}: torchvision's operators fail: {reason}", repair)
    return ok(name, pair)


def check_ray(version: str | None = None, wanted: str | None = None) -> Check:
    """Check that Ray can be imported, in a version that the actors and `genray/rllib/` support."""
    name = "Ray"
    wanted = wanted or requirement("genray", "ray") or ">=2.60,<3"
    if version is None:
        import ray

        version = ray.__version__
    if not fits(version, wanted):
        return fail(
            name,
            f"{version}, wanted {wanted}",
            'pip install "ray[rllib,tune,serve]" -c constraints.txt',
        )
    return ok(name, version)


def check_gymnasium(version: str | None = None, pinned: str | None = None) -> Check:
    """Check that Gymnasium has the version that RLlib requires.

    With another version, RLlib's wrappers fail with obscure errors.
    """
    name = "Gymnasium"
    version = version or metadata.version("gymnasium")
    pinned = pinned or requirement("ray", "gymnasium")
    if not fits(version, pinned):
        return fail(
            name, f"{version}, but RLlib wants {pinned}", f'pip install "gymnasium{pinned}"'
        )
    return ok(name, f"{version} (RLlib wants {pinned or 'any'})")
