"""Style transfer by optimising an image, by a network for one style, or by one for any style."""
