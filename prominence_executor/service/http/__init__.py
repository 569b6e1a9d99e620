"""HTTP in, JSON out: Flask views and the server under them. Keeps no state of its own."""
