"""The published study of optimizers and regularisers: what runs, and its results."""
