"""How the documentation is made: pages are read, their code is run, and what it gives is put under it."""
