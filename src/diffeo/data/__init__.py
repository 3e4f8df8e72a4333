"""Data: files and frames in, encoded rows out, and the way back."""
