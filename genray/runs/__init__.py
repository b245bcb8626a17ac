"""Files of a run directory: how they are written, replaced and removed."""
