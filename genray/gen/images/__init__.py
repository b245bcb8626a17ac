"""Networks for images: the classifier, feature extractors, style transfer and dreams."""
