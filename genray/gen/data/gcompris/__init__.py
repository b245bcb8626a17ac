"""Unpacks the paintings and photographs of GCompris from its Qt resource files."""
