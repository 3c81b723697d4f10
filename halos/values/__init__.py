"""Values that everybody passes around and nobody modifies: parameters, fragments, records."""
