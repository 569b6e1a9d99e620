"""One job on the machine where it runs: files in, tasks, files out. Knows neither queue nor database nor requests."""
