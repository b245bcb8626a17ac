"""Parts of `bench_atari` and `bench_claims`: statistics, pictures, resumable runs, systems."""
