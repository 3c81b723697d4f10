"""What everybody passes around and nobody modifies."""
