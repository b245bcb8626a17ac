"""The runs of `bench_environments`: genray's presets and two rivals on Gymnasium's environments."""
