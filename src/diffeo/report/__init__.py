"""The report: findings (numbers), figures (pictures) and the page that shows both."""
