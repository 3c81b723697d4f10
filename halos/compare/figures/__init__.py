"""The figures of a comparison, drawn by matplotlib: as SVG for the page, and as PNG."""
