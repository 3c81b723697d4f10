"""Configuration: files and key=value in, the objects of a run out."""
