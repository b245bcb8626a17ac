"""Style transfer: by optimising an image, by one network per style, by one for any style."""
