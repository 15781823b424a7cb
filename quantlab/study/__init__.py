"""A study on disk: storage, resume, tables, front and winner."""
