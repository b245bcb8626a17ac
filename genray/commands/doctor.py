"""`genray doctor`: finds faults of an installation and says how to repair them."""


def doctor(argv: list[str], prog: str) -> int:
    """Run `genray doctor`; returns the exit status."""
    from genray.doctor import main as run_doctor

    return run_doctor()
