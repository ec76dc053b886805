"""Sidecars: rendering, ADS, identity, injection, acknowledgements, scraping."""
