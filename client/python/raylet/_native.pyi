"""The extension: what Python may call of the Rust client.

The one thing to know: this is the seam; who uses it beyond the package relies on nothing. It must name
everything that the extension exports.
"""
