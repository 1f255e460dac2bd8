"""The documentation: its pages, and `docs.making`, which runs their code and builds the site."""
