"""The leaderboard as static pages: one self-contained table, and a page for each submission."""
