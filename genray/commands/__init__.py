"""What the commands do, a file for each room. Only here and in cli.py may every room meet;
imports are lazy.
"""
