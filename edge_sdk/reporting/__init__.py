"""What was measured, made readable: tables for the terminal."""
