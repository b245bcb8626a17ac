"""Parts of `bench_claims`: the variants, a run, what a network expects against what it gets."""
