"""Other proxies, put in this one's place: installed, started and driven the same way."""
