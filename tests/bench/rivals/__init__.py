"""The systems that genray is measured against, each a program that prints one JSON line."""
