"""Serinus: progressive delivery for Kubernetes, decided on what the sidecars measured."""

__version__ = "0.1.0"
