"""A world model as a page that plays without a server: the network in JavaScript."""
