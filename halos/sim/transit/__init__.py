"""What is under way between regions."""
