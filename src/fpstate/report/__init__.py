"""Text, JSON and pictures of results; nothing here decides anything."""
