"""World models of sprites: what a game shows next, given its last screens and the player's action.

`genray train world` trains them on episodes, and `genray.gen.world.dream` plays inside them.
"""
