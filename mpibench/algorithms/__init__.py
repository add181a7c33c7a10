"""The methods, one a file; the file's name is the name in experiments."""
