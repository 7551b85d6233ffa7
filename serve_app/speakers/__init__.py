"""Who said what: tells the voices of a recording apart and labels its sentences."""
