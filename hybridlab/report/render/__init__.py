"""The renderers: plain reports to the terminal, to Markdown and to a page."""
