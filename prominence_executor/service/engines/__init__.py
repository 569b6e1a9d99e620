"""Where the processes of jobs run: on this machine. Starts and ends them; decides nothing about jobs."""
