"""What is measured on a GPU: one program that builds, checks and times all runners, one concern a file."""
