"""The HTTP routes, one file for each API. Each file adds its routes to an application around a
`Service`.
"""
