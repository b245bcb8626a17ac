"""The HTTP routes, a file for each convention; each adds its own to an application around a
`Service`.
"""
