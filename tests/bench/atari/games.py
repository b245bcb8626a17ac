"""The games of `bench_atari`, written down before the first run of the report games.

Settings of genray's presets are chosen on the tuning games only. Nothing is chosen after a look at
the report games. The games kept back are for acceptance: nobody runs them before a release.
"""

TUNING = ("road_runner", "krull", "up_n_down", "boxing")
REPORT = ("crazy_climber", "gopher", "assault", "demon_attack", "kangaroo", "breakout")
KEPT_BACK = ("kung_fu_master", "jamesbond")

SETS = {"tuning": TUNING, "report": REPORT, "kept-back": KEPT_BACK}
