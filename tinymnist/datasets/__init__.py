"""Where images come from: files, downloads, embedded digits, pictures."""
