"""Messages to objects, and arguments to messages: one file a noun, pure, and without importing the stubs until used."""
