"""One thin asynchronous client of the API server, and what is built on it."""
