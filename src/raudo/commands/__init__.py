"""What each command of the command line does, where it is no run: one file each."""
