"""What the configuration of a saved world model says about its game."""

from typing import Any


def game_title(config: dict[str, Any]) -> str:
    """Return the game's name as people write it, or the class of a user's own environment; "The
    game" if the model does not say it.
    """
    recipe = recipe_of(config)
    own = str(recipe.get("env", "")).rpartition(":")[2]
    return own or str(recipe.get("game", "The game")).replace("_", " ").title()


def action_names(config: dict[str, Any], actions: int) -> list[str]:
    """Return the names of a model's actions; their numbers if the model has no names."""
    names = recipe_of(config).get("actions")
    if not isinstance(names, list) or len(names) != actions:
        return [str(number) for number in range(actions)]
    return [str(name) for name in names]


def recipe_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return how the model's episodes were recorded; empty if that is not known."""
    return (config.get("data") or {}).get("recipe") or {}
