"""Records and samples on disk, and the tables made of them."""
