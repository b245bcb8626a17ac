"""The training loop that all families share: optimizers, schedules, data-parallel workers."""
