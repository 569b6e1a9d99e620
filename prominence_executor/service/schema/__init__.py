"""What descriptions of jobs and workflows may contain, and what they ask of a machine. No state, no files, no clock."""
