"""Style transfer by optimising an image, by one network per style, or by one for any style."""
