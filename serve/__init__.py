"""Deployment: Ray Serve in front of models that a run has left on disk.

This room will hold the web application (one ingress that checks requests, batches them and
answers with images, codes or actions), the predictors behind it (pure functions of arrays,
testable without Ray), and the page that shows them in a browser. It loads models through
`genray.runs.modelstore` and runs them with `genray.rl` and `genray.gen`; it never starts
training and never imports `genray.distributed`.
"""
