"""Submissions and their ranking: from a contributor's files to a row that others can run again."""
