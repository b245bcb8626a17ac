"""Run directories, models on disk, remote storage, progress on a terminal, requests to stop."""
