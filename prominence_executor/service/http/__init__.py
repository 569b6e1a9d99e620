"""HTTP in, JSON out: views, and the server before them. Keeps no state of its own."""
