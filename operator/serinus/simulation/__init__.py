"""Releases in virtual time: a described service in place of a real one, judged by the product's own ``decide``."""
