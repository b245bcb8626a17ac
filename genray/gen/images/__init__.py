"""Networks that look at images: the classifier, feature extractors, style and dreams."""
