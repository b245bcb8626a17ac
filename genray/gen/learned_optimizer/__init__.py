"""Learned optimizers: an LSTM that is trained by gradient descent to minimise functions."""
