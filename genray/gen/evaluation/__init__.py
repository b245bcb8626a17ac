"""Evaluation of trained models: metrics, retrieval, clustering, anomalies, linear probes."""
