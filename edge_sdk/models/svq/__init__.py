"""SVQ: objects found by slot attention and told in discrete codes; trained, generated from and deployed.

Nothing is imported here, so that to list the plugin costs nothing.
"""
