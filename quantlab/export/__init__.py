"""Hands the winner over: its BitsAndBytesConfig, a snippet that loads it, and the proof that it loads."""
